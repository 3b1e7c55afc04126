//! What an operator sees of one request, wherever it went.

use postern_tests::{cluster::Cluster, collector::Collector, origin::Origin, until, world::app};
use proto::v1;

#[tokio::test]
async fn one_trace_leads_from_the_user_to_the_application() {
    let collector = Collector::start().await;
    let endpoint = collector.endpoint.clone();
    let environment = vec![
        ("POSTERN_TELEMETRY__OTLP_ENDPOINT", endpoint.clone()),
        ("POSTERN_CONNECTOR_TELEMETRY__OTLP_ENDPOINT", endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".into()),
    ];
    let cluster = Cluster::start_with(environment).await;
    let origin = Origin::start().await;
    cluster.publish(v1::App { pre_authentication: 1, ..app("open", &origin.url()) }).await;
    let users = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let url = cluster.url(0, "open", "/page");
    let answer = cluster.browser().get_with(&url, &[("traceparent", users)]).await;
    let seen = answer.json()["headers"]["traceparent"][0].as_str().unwrap().to_owned();
    let [_, trace, span, _] = seen.split('-').collect::<Vec<_>>()[..] else { panic!("no traceparent: {seen}") };
    assert_eq!(trace, "0af7651916cd43dd8448eb211c80319c");

    let find = async |id: Vec<u8>| until("a span", async || collector.find(|(_, span)| span.span_id == id)).await;
    let (service, connector) = find(hex(span)).await;
    assert!(service.contains("postern-connector"), "{service}");
    assert_eq!((connector.name.as_str(), connector.kind), ("origin", 3));
    let (service, relay) = find(connector.parent_span_id.clone()).await;
    assert!(service.contains("postern-relay"), "{service}");
    assert_eq!((relay.name.as_str(), relay.kind), ("request", 2));
    assert_eq!((relay.trace_id, relay.parent_span_id), (hex(trace), hex("b7ad6b7169203331")));
    let said = format!("{:?}", relay.attributes);
    let request_id = answer.headers["x-request-id"].to_str().unwrap();
    for wanted in ["http.response.status_code", "IntValue(200)", request_id] {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
    assert!(!said.contains("/page"), "paths are private");
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
