/// The trace that a send belongs to, in W3C's words. It travels in the
/// message's top-level headers, where OpenTelemetry's instrumentation of Celery
/// writes it and reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The header `traceparent`: `00-<trace id>-<parent id>-<flags>`.
    pub traceparent: String,
    /// The header `tracestate`.
    pub tracestate: Option<String>,
}
