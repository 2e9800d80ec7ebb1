//! `#[receiver]` in programs that do not compile, and what they are told.

#[test]
fn says_what_is_wrong() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
