//! Siltstone answers what Kafka answered.

use kafka_protocol::messages::ApiVersionsRequest;
use siltstone_conformance::run::Outcome;
use siltstone_conformance::session::api_name;
use siltstone_conformance::{Conn, brokers, golden, run};
use std::sync::Mutex;

/// Scenarios at once on one broker; most of their time is waiting.
const THREADS: usize = 4;

#[test]
fn siltstone_answers_as_kafka_did() {
    let prefixes: Vec<String> =
        std::env::var("CONFORMANCE_ONLY").map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let mut differences = golden::Differences::load().expect("differences.toml");
    let mut report = String::new();
    for group in run::groups(&prefixes) {
        for outcome in run_group(group) {
            let name = outcome.scenario.name;
            let recorded = golden::load(name).expect("golden file");
            for diff in golden::compare(&recorded, &outcome.steps) {
                if !differences.covers(name, &diff.path) {
                    let (kafka, ours) = (diff.kafka, diff.ours);
                    let entry = format!("{name} · {}\n    kafka {kafka}\n    ours  {ours}\n", diff.path);
                    report.push_str(&entry);
                }
            }
            if let Some(error) = outcome.error {
                report.push_str(&format!("{name} · stopped: {error:#}\n"));
            }
        }
    }
    if prefixes.is_empty() {
        for entry in differences.unmet() {
            report.push_str(&format!("differences.toml: {entry} is no longer a difference: remove it\n"));
        }
    }
    assert!(report.is_empty(), "answers differ from Kafka's:\n{report}");
}

/// APIs that ask for no permission.
const EXEMPT: [(i16, &str); 3] = [
    (18, "ApiVersions: what is served is told before anybody is known"),
    (71, "GetTelemetrySubscriptions: what is asked of clients is for all of them"),
    (72, "PushTelemetry: as for its subscription"),
];

/// No handler is forgotten: whoever adds an API records what one gets who may not use it.
#[test]
fn every_served_api_is_asked_by_a_client_without_permissions() {
    let broker = brokers::start_siltstone(&[]).expect("siltstone starts");
    let mut conn = Conn::open(broker.addr).expect("connects");
    let served = conn.call(0, &ApiVersionsRequest::default()).expect("an answer").api_keys;
    let recorded: Vec<String> = golden::load("acl-denied").expect("golden file").iter().map(|step| step["api"].to_string()).collect();
    let is_asked =
        |key: i16| recorded.iter().any(|api| api.trim_matches('"').rsplit_once(' ').is_some_and(|(name, _)| name == api_name(key)));
    for key in served.iter().map(|api| api.api_key) {
        let exempt = EXEMPT.iter().find(|(exempt, _)| *exempt == key);
        assert!(
            exempt.is_some() != is_asked(key),
            "{}: ask for it in the scenario acl-denied, or name here why nobody may be refused",
            api_name(key)
        );
    }
}

fn run_group(group: Vec<siltstone_conformance::Scenario>) -> Vec<Outcome> {
    let mut broker = brokers::start_siltstone(group[0].settings).expect("siltstone starts");
    run::warm_up(&broker).unwrap_or_else(|e| panic!("{e:#}\n{}", broker.log_tail()));
    let (addr, queue, done) = (broker.addr, Mutex::new(group), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("queue").pop();
                    let Some(scenario) = next else { return };
                    let outcome = run::run(scenario, addr);
                    done.lock().expect("outcomes").push(outcome);
                }
            });
        }
    });
    assert!(broker.is_alive(), "siltstone died:\n{}", broker.log_tail());
    let mut outcomes = done.into_inner().expect("outcomes");
    outcomes.sort_by_key(|o| o.scenario.name);
    outcomes
}
