//! How often a receiver that failed is tried again, and after which pauses.

use std::time::Duration;

use serde::Deserialize;

/// No pause is longer than this, whatever a policy says: what comes after a year is not a retry.
const LONGEST: f64 = 365.0 * 24.0 * 3600.0;

/// A receiver's retries: exponential pauses up to a cap, with jitter.
///
/// In a policy that is read, all but `max` may be missing.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryPolicy {
    /// How often it is tried again after the first time. 0: parked at its first failure.
    pub max: u32,
    /// The first pause, in seconds.
    #[serde(default = "one")]
    pub base: f64,
    /// By what each pause is longer than the one before.
    #[serde(default = "two")]
    pub factor: f64,
    /// The longest pause, in seconds.
    #[serde(default = "hour")]
    pub cap: f64,
    /// Whether a pause is anything from its half to its whole, so that what
    /// failed together does not come back together.
    #[serde(default = "yes")]
    pub jitter: bool,
}

const fn one() -> f64 {
    1.0
}

const fn two() -> f64 {
    2.0
}

const fn hour() -> f64 {
    3600.0
}

const fn yes() -> bool {
    true
}

impl RetryPolicy {
    /// A policy with the usual pauses: 1, 2, 4, … seconds up to an hour, with jitter.
    pub const fn new(max: u32) -> Self {
        Self { max, base: one(), factor: two(), cap: hour(), jitter: yes() }
    }

    /// Whether a receiver that failed in this try (1 is the first) may be tried again.
    pub fn allows(&self, attempt: u32) -> bool {
        attempt <= self.max
    }

    /// How long to wait after this try (1 is the first) failed. `random` is
    /// from 0 to 1 and chooses within the jitter. What makes no sense (a
    /// negative or infinite number) makes no pause, or one of at most a year.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use async_signals::retry::RetryPolicy;
    ///
    /// let policy = RetryPolicy { jitter: false, cap: 60.0, ..RetryPolicy::new(10) };
    /// let pauses: Vec<u64> = [1, 2, 3, 9].iter().map(|&attempt| policy.pause(attempt, 0.0).as_secs()).collect();
    /// assert_eq!(pauses, [1, 2, 4, 60]);
    ///
    /// let jittered = RetryPolicy::new(10).pause(3, 0.5);
    /// assert_eq!(jittered, Duration::from_secs(3));
    /// ```
    pub fn pause(&self, attempt: u32, random: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let whole = (self.base * self.factor.powi(exponent)).min(self.cap).min(LONGEST);
        let share = if self.jitter { 0.5 + 0.5 * random.clamp(0.0, 1.0) } else { 1.0 };
        Duration::try_from_secs_f64(whole * share).unwrap_or_default()
    }
}

/// A number from 0 to 1 that chooses within the jitter.
pub fn random() -> f64 {
    // Without randomness all wait for the same time, which is still a pause.
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<RetryPolicy, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn only_how_often_must_be_said() {
        assert_eq!(read(r#"{"max": 3}"#).expect("a policy"), RetryPolicy::new(3));
        let whole = read(r#"{"max": 0, "base": 2, "factor": 1.5, "cap": 10, "jitter": false}"#).expect("a policy");
        assert_eq!(whole, RetryPolicy { max: 0, base: 2.0, factor: 1.5, cap: 10.0, jitter: false });
        for wrong in ["{}", r#"{"max": -1}"#, r#"{"max": 3, "bse": 2}"#, r#"{"max": 3, "jitter": 1}"#] {
            read(wrong).expect_err(wrong);
        }
    }

    #[test]
    fn tries_are_counted_from_the_first() {
        let policy = RetryPolicy::new(2);
        assert_eq!([1, 2, 3].map(|attempt| policy.allows(attempt)), [true, true, false]);
        assert!(!RetryPolicy::new(0).allows(1));
    }

    proptest! {
        #[test]
        fn a_pause_lies_between_its_half_and_its_whole(
            attempt in 1..40u32, random in 0.0..1.0f64, base in 0.0..100.0f64, factor in 1.0..5.0f64, cap in 0.0..1e5f64,
        ) {
            let jittered = RetryPolicy { max: 1, base, factor, cap, jitter: true };
            let whole = RetryPolicy { jitter: false, ..jittered.clone() };
            let (pause, whole, next) =
                (jittered.pause(attempt, random), whole.pause(attempt, random), whole.pause(attempt + 1, random));
            prop_assert!(pause <= whole + Duration::from_nanos(1));
            prop_assert!(pause + Duration::from_nanos(1) >= whole / 2);
            prop_assert!(whole <= next);
            prop_assert!(whole.as_secs_f64() <= cap + 1e-6);
        }

        #[test]
        fn no_numbers_make_it_panic(
            attempt: u32, random in prop::num::f64::ANY, base in prop::num::f64::ANY,
            factor in prop::num::f64::ANY, cap in prop::num::f64::ANY, jitter: bool,
        ) {
            let pause = RetryPolicy { max: 1, base, factor, cap, jitter }.pause(attempt, random);
            prop_assert!(pause.as_secs_f64() <= LONGEST);
        }
    }
}
