//! The consumer's embedded protocol, as far as the coordinator looks into it: the topics of a subscription.

use bytes::{Buf, Bytes};

/// `protocol_type` of consumers.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// The topics of a ConsumerProtocolSubscription of any version (all begin alike: version, topics); `None` if it is not one.
pub(crate) fn subscribed_topics(mut subscription: &[u8]) -> Option<Vec<String>> {
    let version = subscription.try_get_i16().ok()?;
    let count = subscription.try_get_i32().ok()?;
    if version < 0 || count < 0 {
        return None;
    }
    let mut topics = Vec::new();
    for _ in 0..count {
        let len = usize::try_from(subscription.try_get_i16().ok()?).ok()?;
        let (topic, rest) = subscription.split_at_checked(len)?;
        topics.push(std::str::from_utf8(topic).ok()?.to_owned());
        subscription = rest;
    }
    // User data follows in every version: a nullable byte string.
    let user_data_len = subscription.try_get_i32().ok()?;
    match usize::try_from(user_data_len) {
        Ok(len) => subscription.split_at_checked(len).map(|_| topics),
        Err(_) => (user_data_len == -1).then_some(topics),
    }
}

/// The union of the topics of all `subscriptions`; `None` if one can't be read.
pub(crate) fn all_subscribed_topics<'a>(subscriptions: impl Iterator<Item = &'a Bytes>) -> Option<std::collections::HashSet<String>> {
    let mut all = std::collections::HashSet::new();
    for subscription in subscriptions {
        all.extend(subscribed_topics(subscription)?);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_topics_of_a_subscription_and_refuses_anything_else() {
        let v1 = b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff\0\0\0\0";
        assert_eq!(subscribed_topics(v1), Some(vec!["a".to_owned(), "bc".to_owned()]));
        assert_eq!(subscribed_topics(b"\0\0\0\0\0\0\0\0\0\x02hi"), Some(vec![]));
        for len in 0..v1.len() - 4 {
            assert_eq!(subscribed_topics(&v1[..len]), None, "cut at {len}");
        }
        assert_eq!(subscribed_topics(b"\0\0\x7f\xff\xff\xff\0\x01a"), None);
    }
}
