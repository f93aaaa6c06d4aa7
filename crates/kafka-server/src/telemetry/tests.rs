use super::*;

fn image(subscriptions: &[(&str, &[(&str, &str)])]) -> MetadataImage {
    let mut image = MetadataImage::default();
    for (name, configs) in subscriptions {
        let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        image.client_metrics.insert((*name).to_owned(), configs);
    }
    image
}

fn receiver() -> ClientTelemetry {
    let on = [("metric.reporters".to_owned(), RECEIVER.to_owned()), ("telemetry.max.bytes".to_owned(), "1000".to_owned())];
    ClientTelemetry::new(&BTreeMap::from(on))
}

fn facts(id: u128) -> ClientFacts<'static> {
    let peer = "10.1.2.3:456".parse().expect("an address");
    ClientFacts { instance: Uuid::from_u128(id), client_id: "shop-1", software: ("apache-kafka-java", "4.3.1"), peer }
}

fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(bytes.len()).expect("short")];
    out.extend(bytes);
    out
}

/// A `MetricsData` with one sum or gauge of one double.
fn metrics(name: &str, value: f64, delta: bool) -> Vec<u8> {
    let point = [&[4 << 3 | 1][..], &value.to_le_bytes()].concat();
    let mut data = field(1, &point);
    if delta {
        data.extend([2 << 3, 1]);
    }
    let metric = [field(1, name.as_bytes()), field(if delta { 7 } else { 5 }, &data)].concat();
    field(1, &field(2, &field(2, &metric)))
}

fn push(id: u128, subscription_id: i32, data: &[u8]) -> Push<'_> {
    Push { instance: Uuid::from_u128(id), subscription_id, terminating: false, compression: 0, data }
}

#[test]
fn subscriptions_that_match_are_put_together() {
    let image = image(&[
        ("a", &[("metrics", "org.apache.kafka.producer."), ("interval.ms", "5000"), ("match", "client_id=shop-.*")]),
        ("b", &[("metrics", "org.apache.kafka.consumer."), ("match", "client_software_name=apache-.*,client_source_port=456")]),
        ("c", &[("metrics", "*"), ("interval.ms", "100"), ("match", "client_id=shop")]),
        ("d", &[("metrics", "x"), ("match", "client_id=(")]),
    ]);
    let told = receiver().subscribe(&image, &facts(1), 0).expect("told");
    assert_eq!(
        (told.interval_ms, &told.metrics[..]),
        (5_000, &["org.apache.kafka.consumer.".to_owned(), "org.apache.kafka.producer.".to_owned()][..])
    );
    let none = receiver().subscribe(&MetadataImage::default(), &facts(1), 0).expect("told");
    assert_eq!((none.interval_ms, none.metrics.len()), (300_000, 0));
}

#[test]
fn what_clients_send_is_summed_up() {
    let (receiver, image) = (receiver(), image(&[("all", &[("metrics", "*"), ("interval.ms", "1000")])]));
    let (rate, total) = ("org.apache.kafka.producer.connection.creation.rate", "org.apache.kafka.producer.connection.creation.total");
    for (id, value) in [(1, 2.0), (2, 5.0)] {
        let told = receiver.subscribe(&image, &facts(id), 0).expect("told");
        for (at, name, delta) in [(10, rate, false), (1_010, total, true), (2_010, total, true)] {
            let data = [metrics(name, value, delta), metrics("made.up.by.a.client", 1.0, false)].concat();
            receiver.push(&image, &facts(id), &push(id, told.subscription_id, &data), at).expect("taken");
        }
    }
    let metric = |name: &str, sum, max| ClientMetric { name: name.to_owned(), instances: 2, sum, max };
    assert_eq!(receiver.collected(2_010), [metric(rate, 7.0, 5.0), metric(total, 14.0, 10.0)]);
}

#[test]
fn clients_that_have_gone_count_no_more() {
    let (receiver, image) = (receiver(), image(&[("all", &[("metrics", "*"), ("interval.ms", "1000")])]));
    let rate = "org.apache.kafka.producer.connection.creation.rate";
    for (id, terminating) in [(1, false), (2, true)] {
        let told = receiver.subscribe(&image, &facts(id), 0).expect("told");
        let data = metrics(rate, 2.0, false);
        let push = Push { terminating, ..push(id, told.subscription_id, &data) };
        receiver.push(&image, &facts(id), &push, 10).expect("taken");
    }
    assert_eq!((receiver.instances(10), receiver.collected(10).first().map(|metric| metric.sum)), (1, Some(2.0)), "one has said good-bye");
    assert_eq!((receiver.instances(3_010), receiver.collected(3_010)), (0, Vec::new()), "the other was not heard of for three intervals");
}

/// A churn of connections must not take what is known of those that stay.
#[test]
fn software_is_known_for_as_long_as_its_connection_lasts() {
    let receiver = receiver();
    let peer = |port: usize| SocketAddr::from(([10, 0, u8::try_from(port >> 16).expect("few"), 1], (port & 0xffff) as u16));
    receiver.note_software(peer(1), "first", "1");
    for port in 2..SOFTWARE_MAX + 100 {
        receiver.note_software(peer(port), "other", "1");
        receiver.forget_software(peer(port));
    }
    assert_eq!(receiver.software(peer(1)).0, "first");
    receiver.forget_software(peer(1));
    assert_eq!(receiver.software(peer(1)).0, "", "a later client from there may be another");
}

#[test]
fn pushes_that_break_the_rules_are_refused() {
    let (receiver, image) = (receiver(), image(&[("all", &[("metrics", "*"), ("interval.ms", "1000")])]));
    let told = receiver.subscribe(&image, &facts(1), 0).expect("told");
    let refused = |push: &Push<'_>, at| receiver.push(&image, &facts(1), push, at).expect_err("refused");
    let id = told.subscription_id;
    assert_eq!(refused(&push(0, id, &[]), 0), ResponseError::InvalidRequest);
    assert_eq!(refused(&push(9, id, &[]), 0), ResponseError::UnknownSubscriptionId);
    assert_eq!(refused(&push(1, id + 1, &[]), 0), ResponseError::UnknownSubscriptionId);
    assert_eq!(refused(&Push { compression: 9, ..push(1, id, &[]) }, 0), ResponseError::UnsupportedCompressionType);
    assert_eq!(refused(&push(1, id, &[0; 1001]), 5_000), ResponseError::TelemetryTooLarge);
    assert_eq!(refused(&push(1, id, &[0xff; 10]), 10_000), ResponseError::InvalidRecord);
    assert_eq!(refused(&push(1, id, &[]), 10_001), ResponseError::ThrottlingQuotaExceeded);
    receiver.push(&image, &facts(1), &Push { terminating: true, ..push(1, id, &[]) }, 10_002).expect("the last one may come early");
    assert_eq!(refused(&push(1, id, &[]), 20_000), ResponseError::InvalidRequest);
}

#[test]
fn asking_again_too_soon_is_refused() {
    let (receiver, image) = (receiver(), MetadataImage::default());
    assert!(receiver.subscribe(&image, &facts(1), 0).is_ok());
    assert_eq!(receiver.subscribe(&image, &facts(1), 1_000).err(), Some(ResponseError::ThrottlingQuotaExceeded));
    assert!(receiver.subscribe(&image, &facts(1), 300_000).is_ok());
}

#[test]
fn a_bomb_is_no_push() {
    let (receiver, image) = (receiver(), image(&[("all", &[("metrics", "*"), ("interval.ms", "1000")])]));
    let told = receiver.subscribe(&image, &facts(1), 0).expect("told");
    let bomb = siltstone_log::compression::compress(Compression::Zstd, &vec![0; INFLATED_BYTES_MAX + 1]).expect("compresses");
    assert!(bomb.len() < 1_000);
    let outcome = receiver.push(&image, &facts(1), &Push { compression: 4, ..push(1, told.subscription_id, &bomb) }, 0);
    assert_eq!(outcome, Err(ResponseError::InvalidRecord));
}
