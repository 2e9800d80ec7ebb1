//! What a message is, before anything of it runs.

use std::time::SystemTime;

use uuid::Uuid;

use crate::{
    message::Incoming,
    protocol::{celery::TASK, compression, time},
};

/// What is to be done with a message that was just taken.
#[derive(Debug, PartialEq)]
pub(super) enum Admission {
    /// Run it, unless it expires before it begins.
    Now { expires: Option<SystemTime> },
    /// Run it then.
    Later { eta: SystemTime, expires: Option<SystemTime> },
    /// Too late: drop it.
    Expired,
    /// Nobody may run it.
    Unfit { kind: &'static str, reason: String },
}

/// Looks at the headers alone. `knows` tells whether a task that is no signal is run here.
pub(super) fn admit(incoming: &Incoming, now: SystemTime, knows: impl FnOnce(&str) -> bool) -> Admission {
    let headers = &incoming.headers;
    let Some(task) = headers.text("task") else {
        return malformed("it has no task name; only Celery's message protocol 2 is read");
    };
    let Some(id) = headers.text("id") else { return malformed("it has no id") };
    if task == TASK {
        if id.parse::<Uuid>().is_err() {
            return malformed("its id is no UUID");
        }
        if &*incoming.properties.content_type != "application/json" {
            return refused(format!(
                "its content type is {:?}, not application/json",
                cut(&incoming.properties.content_type)
            ));
        }
        if headers.is_plain() {
            return Admission::Now { expires: None };
        }
        if let Err(error) = compression::is_compressed(headers) {
            return refused(error.to_string());
        }
    } else if !knows(task) {
        return Admission::Unfit { kind: "UnknownTask", reason: format!("this worker has no task {:?}", cut(task)) };
    }
    match (time::read(headers, "expires"), time::read(headers, "eta")) {
        (Err(error), _) | (_, Err(error)) => malformed(&error.to_string()),
        (Ok(expires), Ok(eta)) => {
            // Whose result somebody may wait for is for Celery to declare revoked.
            let expires = expires.filter(|_| task == TASK);
            match eta {
                _ if expires.is_some_and(|expires| expires <= now) => Admission::Expired,
                Some(eta) if eta > now => Admission::Later { eta, expires },
                _ => Admission::Now { expires },
            }
        }
    }
}

fn malformed(reason: &str) -> Admission {
    Admission::Unfit { kind: "Malformed", reason: reason.to_owned() }
}

fn refused(reason: String) -> Admission {
    Admission::Unfit { kind: "Refused", reason }
}

fn cut(text: &str) -> &str {
    match text.char_indices().nth(100) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::message::Properties;

    const ID: &str = "0d6b6c5e-6bd6-4b94-8b3f-3f4f2ba38f0b";

    const NOW: Admission = Admission::Now { expires: None };

    fn incoming(headers: Value) -> Incoming {
        Incoming {
            headers: headers.as_object().expect("a map").clone().into(),
            properties: Properties::for_task(Uuid::nil()),
            exchange: String::new(),
            routing_key: "celery".to_owned(),
            body: Bytes::new(),
        }
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000) // 2001-09-09T01:46:40Z
    }

    fn admitted(headers: Value) -> Admission {
        admit(&incoming(headers), now(), |task| task == "shop.tasks.known")
    }

    fn kind(admission: Admission) -> &'static str {
        match admission {
            Admission::Unfit { kind, .. } => kind,
            _ => "",
        }
    }

    #[test]
    fn runs_signals_and_known_tasks() {
        assert_eq!(admitted(json!({"task": TASK, "id": ID, "eta": null, "expires": null})), NOW);
        assert_eq!(admitted(json!({"task": "shop.tasks.known", "id": "any"})), NOW);
        assert_eq!(kind(admitted(json!({"task": "shop.tasks.other", "id": ID}))), "UnknownTask");
    }

    #[test]
    fn parks_what_is_no_task() {
        for headers in
            [json!({}), json!({"task": TASK}), json!({"task": 1, "id": ID}), json!({"task": TASK, "id": "x"})]
        {
            assert_eq!(kind(admitted(headers.clone())), "Malformed", "{headers}");
        }
        assert_eq!(kind(admitted(json!({"task": TASK, "id": ID, "compression": "application/x-bz2"}))), "Refused");
        assert_eq!(admitted(json!({"task": TASK, "id": ID, "compression": "application/x-gzip"})), NOW);
        let mut pickled = incoming(json!({"task": TASK, "id": ID}));
        pickled.properties.content_type = "application/x-python-serialize".into();
        assert_eq!(kind(admit(&pickled, now(), |_| false)), "Refused");
    }

    #[test]
    fn tells_now_later_and_too_late_apart() {
        let of = |eta: Value, expires: Value| admitted(json!({"task": TASK, "id": ID, "eta": eta, "expires": expires}));
        let later = now() + Duration::from_secs(20);
        for eta in [
            "2001-09-09T01:47:00+00:00",
            "2001-09-09T01:47:00.000000+00:00",
            "2001-09-09T03:47:00+02:00",
            "2001-09-09T01:47:00",
            "2001-09-09T01:47:00Z",
            "2001-09-09 01:47:00+00:00",
        ] {
            assert_eq!(of(json!(eta), Value::Null), Admission::Later { eta: later, expires: None }, "{eta}");
            assert_eq!(of(Value::Null, json!(eta)), Admission::Now { expires: Some(later) }, "{eta}");
        }
        let past = json!("2001-09-09T01:46:00+00:00");
        let foreign = json!({"task": "shop.tasks.known", "id": "any", "expires": past});
        assert_eq!(admitted(foreign), NOW, "Celery has to say that it is revoked");
        assert_eq!(of(past.clone(), Value::Null), NOW);
        assert_eq!(of(Value::Null, past.clone()), Admission::Expired);
        let soon = json!("2001-09-09T01:47:00+00:00");
        assert_eq!(of(Value::Null, soon.clone()), Admission::Now { expires: Some(later) });
        assert_eq!(of(soon.clone(), soon), Admission::Later { eta: later, expires: Some(later) });
        assert_eq!(of(json!("2001-09-09T01:47:00+00:00"), past), Admission::Expired);
        assert_eq!(kind(of(json!("soon"), Value::Null)), "Malformed");
        assert_eq!(kind(of(json!(5), Value::Null)), "Malformed");
    }
}
