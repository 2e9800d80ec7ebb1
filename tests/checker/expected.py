"""Which receivers a signal of the checker has: what the judge expects of each message."""

RECEIVERS: dict[str, tuple[str, ...]] = {
    "heard": ("first", "second"),
    "gated": ("before_the_gate", "at_the_gate"),
    "slow": ("takes_its_time",),
    "deadly": ("kills_its_process",),
    "failing": ("before_the_failure", "after_the_failure"),
    "awaited": ("awaiting", "awaiting_too"),
    "told": ("asks",),
    "chained": ("sends_on",),
    "newer": ("never_registered",),
    "unheard": (),
    "elsewhere": ("far_away",),
    "retried": ("succeeds_at_once", "succeeds_at_the_third_try", "never_succeeds"),
    "single": ("only_once", "gate_after_once"),
}
