//! Logs to standard error, as text for people or JSON for machines, and traces
//! over OTLP when an endpoint is given.

use std::{ffi::OsStr, io::IsTerminal};

use opentelemetry::{
    propagation::{Extractor, TextMapPropagator},
    trace::{TraceContextExt, TracerProvider},
};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use serde::Deserialize;
use thiserror::Error;
use tracing::{Span, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{ParseError, Targets},
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

/// The target of spans that leave the process as traces. They are DEBUG, so they
/// cost nothing where neither traces nor such logs are wanted.
pub const TRACE: &str = "postern::trace";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// `human` or `json`.
    pub format: Format,
    /// A level, or directives such as `info,relay=debug`.
    pub level: String,
    /// `http://HOST:4317`; no traces leave the process without it.
    pub otlp_endpoint: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Human,
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self { format: Format::Human, level: "info".into(), otlp_endpoint: None }
    }
}

#[derive(Debug, Error)]
pub enum TelemetryError {
    #[error("reading level {level:?}")]
    Level { level: String, source: ParseError },
    #[error("preparing traces to {endpoint}")]
    Exporter { endpoint: String, source: ExporterBuildError },
    #[error("starting the log")]
    Log(#[from] TryInitError),
}

/// Keeps the exporter alive; what is not sent yet goes out when it is dropped.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider {
            // The collector may be gone; a process does not wait for it.
            let _sent = provider.shutdown();
        }
    }
}

/// Starts logs and traces for the whole process. Must run inside the runtime.
pub fn start(role: &'static str, settings: &Settings) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_new(&settings.level)
        .map_err(|source| TelemetryError::Level { level: settings.level.clone(), source })?;
    let provider = settings.otlp_endpoint.as_deref().map(|endpoint| provider(role, endpoint)).transpose()?;
    let traces = provider.as_ref().map(|it| {
        let ours = Targets::new().with_target(TRACE, LevelFilter::DEBUG);
        let layer = tracing_opentelemetry::layer().with_tracer(it.tracer(role));
        layer
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(ours)
    });
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        Format::Human => {
            let colours = wants_colours(std::io::stderr().is_terminal(), std::env::var_os("NO_COLOR").as_deref());
            let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
            lines.with_filter(filter).boxed()
        }
        Format::Json => {
            tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).with_filter(filter).boxed()
        }
    };
    Registry::default().with(lines).with(traces).try_init()?;
    Ok(Telemetry { provider })
}

/// Colours are for eyes, not for files; and not for eyes that do not want them
/// (no-color.org).
fn wants_colours(terminal: bool, no_color: Option<&OsStr>) -> bool {
    terminal && no_color.is_none_or(OsStr::is_empty)
}

fn provider(role: &'static str, endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| TelemetryError::Exporter { endpoint: endpoint.to_owned(), source })?;
    let resource = Resource::builder().with_service_name(format!("postern-{role}")).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Makes `span` part of the trace that `traceparent` names (W3C Trace Context);
/// one that is none is as good as absent.
pub fn adopt(span: &Span, traceparent: &str) {
    struct Carrier<'a>(&'a str);
    impl Extractor for Carrier<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            (key == "traceparent").then_some(self.0)
        }

        fn keys(&self) -> Vec<&str> {
            vec!["traceparent"]
        }
    }
    if !span.is_disabled() {
        let context = TraceContextPropagator::new().extract(&Carrier(traceparent));
        // Without a tracer there is no trace to be part of.
        let _untraced = span.set_parent(context);
    }
}

/// What the next hop of `span` is told; none when nobody traces.
pub fn traceparent(span: &Span) -> Option<String> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let it = context.span().span_context().clone();
    let flags = it.trace_flags().to_u8();
    it.is_valid().then(|| format!("00-{}-{}-{flags:02x}", it.trace_id(), it.span_id()))
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |it| it.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert!(wants_colours(true, None));
        assert!(wants_colours(true, Some(OsStr::new(""))));
        assert!(!wants_colours(true, Some(OsStr::new("1"))));
        assert!(!wants_colours(false, None));
    }
}
