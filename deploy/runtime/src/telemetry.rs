//! Logs to standard error, as text for people or JSON for machines, and traces
//! over OTLP when an endpoint is given.

use anyhow::Context;
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use serde::Deserialize;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

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
pub fn start(role: &'static str, settings: &Settings) -> anyhow::Result<Telemetry> {
    let filter = EnvFilter::try_new(&settings.level).with_context(|| format!("reading level {:?}", settings.level))?;
    let provider = settings.otlp_endpoint.as_deref().map(|endpoint| provider(role, endpoint)).transpose()?;
    let traces = provider.as_ref().map(|it| tracing_opentelemetry::layer().with_tracer(it.tracer(role)));
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        Format::Human => tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_filter(filter).boxed(),
        Format::Json => {
            tracing_subscriber::fmt::layer().json().with_writer(std::io::stderr).with_filter(filter).boxed()
        }
    };
    Registry::default().with(lines).with(traces).try_init().context("starting the log")?;
    Ok(Telemetry { provider })
}

fn provider(role: &'static str, endpoint: &str) -> anyhow::Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .with_context(|| format!("preparing traces to {endpoint}"))?;
    let resource = Resource::builder().with_service_name(format!("postern-{role}")).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |it| it.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
