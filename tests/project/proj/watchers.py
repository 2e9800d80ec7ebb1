"""What watches a project's workers from inside, set up as its users set it up; what it saw goes to a file.

WATCHER says which one: `sentry` or `opentelemetry`. Only workers are started with it.
"""

import json
import os
from pathlib import Path
from typing import Any


def _sentry(seen: Path) -> None:
    import sentry_sdk
    from sentry_sdk.envelope import Envelope
    from sentry_sdk.integrations.celery import CeleryIntegration
    from sentry_sdk.transport import Transport

    class Written(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            for item in envelope.items:
                _append(seen, item.payload.json)

    sentry_sdk.init(
        dsn="http://key@localhost/1",
        transport=Written(),
        integrations=[CeleryIntegration()],
        traces_sample_rate=1.0,
        auto_session_tracking=False,
    )


def _opentelemetry(seen: Path) -> None:
    from celery.signals import worker_process_init

    # As OpenTelemetry's guide for Celery has it: in each process that runs tasks.
    @worker_process_init.connect(weak=False)
    def instrument(**_: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.instrumentation.celery import CeleryInstrumentor
        from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

        class Written(SpanExporter):
            def export(self, spans: Any) -> SpanExportResult:
                for span in spans:
                    assert isinstance(span, ReadableSpan)
                    _append(seen, json.loads(span.to_json()))
                return SpanExportResult.SUCCESS

        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Written()))
        trace.set_tracer_provider(provider)
        CeleryInstrumentor().instrument()


def _append(seen: Path, what: Any) -> None:
    with seen.open("a") as lines:
        lines.write(json.dumps(what) + "\n")


if watcher := os.environ.get("WATCHER"):
    {"sentry": _sentry, "opentelemetry": _opentelemetry}[watcher](Path(os.environ["WATCHER_FILE"]))
