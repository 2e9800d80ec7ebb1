//! How a tag is written in Redis: `<worker>.<generation>.<number>`.

use crate::broker::Tag;

/// The name of a message that a worker holds.
pub(super) fn write(worker: &str, tag: Tag) -> String {
    format!("{worker}.{}.{}", tag.generation, tag.number)
}

/// The worker and its tag; `None` for what kombu itself holds.
pub(super) fn read(name: &str) -> Option<(&str, Tag)> {
    let mut parts = name.rsplitn(3, '.');
    let (number, generation, worker) = (parts.next()?, parts.next()?, parts.next()?);
    Some((worker, Tag { generation: generation.parse().ok()?, number: number.parse().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let tag = Tag { generation: 2, number: 17 };
        assert_eq!(write("host-1", tag), "host-1.2.17");
        assert_eq!(read("host-1.2.17"), Some(("host-1", tag)));
        for foreign in ["", "fd0a2c0e-3e0e-4c4b-8f3c-1a2b3c4d5e6f", "a.b", "a.1.x", "a.-1.1"] {
            assert_eq!(read(foreign), None, "{foreign:?}");
        }
    }
}
