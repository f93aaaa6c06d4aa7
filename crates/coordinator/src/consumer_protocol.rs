//! The consumer's embedded protocol, as far as the coordinator looks into it: subscriptions, and assignments when groups migrate.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::records::STRING_BYTES_MAX;

/// `protocol_type` of consumers.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// Highest version of an assignment that is written.
const ASSIGNMENT_VERSION_MAX: i16 = 3;

/// Partitions by topic name.
pub(crate) type NamedPartitions = Vec<(String, Vec<i32>)>;

/// ConsumerProtocolSubscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub(crate) version: i16,
    pub(crate) topics: Vec<String>,
    /// From version 1.
    pub(crate) owned: NamedPartitions,
    /// From version 3.
    pub(crate) rack_id: Option<String>,
}

/// ConsumerProtocolAssignment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EmbeddedAssignment {
    pub(crate) partitions: NamedPartitions,
    /// An assignor of the user's own put something in.
    pub(crate) has_user_data: bool,
}

fn string(buf: &mut &[u8]) -> Option<Option<String>> {
    let len = buf.try_get_i16().ok()?;
    let Ok(len) = usize::try_from(len) else { return (len == -1).then_some(None) };
    let (text, rest) = buf.split_at_checked(len)?;
    *buf = rest;
    Some(Some(std::str::from_utf8(text).ok()?.to_owned()))
}

fn count(buf: &mut &[u8]) -> Option<usize> {
    let count = usize::try_from(buf.try_get_i32().ok()?).ok()?;
    (count <= buf.len()).then_some(count)
}

/// Length of a nullable byte string, which is skipped.
fn user_data(buf: &mut &[u8]) -> Option<usize> {
    let len = buf.try_get_i32().ok()?;
    let Ok(len) = usize::try_from(len) else { return (len == -1).then_some(0) };
    *buf = buf.split_at_checked(len)?.1;
    Some(len)
}

fn named_partitions(buf: &mut &[u8]) -> Option<NamedPartitions> {
    let mut topics = Vec::new();
    for _ in 0..count(buf)? {
        let topic = string(buf)??;
        let mut partitions = Vec::new();
        for _ in 0..count(buf)? {
            partitions.push(buf.try_get_i32().ok()?);
        }
        topics.push((topic, partitions));
    }
    Some(topics)
}

/// The version at the beginning of a subscription or assignment.
fn version(buf: &mut &[u8]) -> Option<i16> {
    buf.try_get_i16().ok().filter(|version| *version >= 0)
}

/// The topics of a subscription of any version (all begin alike: version, topics, user data); `None` if it is not one.
pub(crate) fn subscribed_topics(subscription: &[u8]) -> Option<Vec<String>> {
    read_topics(&mut { subscription }).map(|subscription| subscription.topics)
}

fn read_topics(buf: &mut &[u8]) -> Option<Subscription> {
    let version = version(buf)?;
    let mut topics = Vec::new();
    for _ in 0..count(buf)? {
        topics.push(string(buf)??);
    }
    user_data(buf)?;
    Some(Subscription { version, topics, ..Subscription::default() })
}

/// A whole subscription; `None` if it is not one.
pub(crate) fn read_subscription(mut subscription: &[u8]) -> Option<Subscription> {
    let buf = &mut subscription;
    let mut read = read_topics(buf)?;
    if read.version >= 1 {
        read.owned = named_partitions(buf)?;
    }
    if read.version >= 2 {
        // The generation in which it owned them.
        buf.try_get_i32().ok()?;
    }
    if read.version >= 3 {
        read.rack_id = string(buf)?.filter(|rack| !rack.is_empty());
    }
    Some(read)
}

/// A whole assignment; `None` if it is not one.
pub(crate) fn read_assignment(mut assignment: &[u8]) -> Option<EmbeddedAssignment> {
    let buf = &mut assignment;
    version(buf)?;
    let partitions = named_partitions(buf)?;
    Some(EmbeddedAssignment { partitions, has_user_data: user_data(buf)? > 0 })
}

/// An assignment without user data, for a member whose subscription has `version`.
pub(crate) fn write_assignment(version: i16, partitions: &NamedPartitions) -> Bytes {
    let mut buf = BytesMut::new();
    buf.put_i16(version.min(ASSIGNMENT_VERSION_MAX));
    buf.put_i32(partitions.len() as i32);
    for (topic, partitions) in partitions {
        debug_assert!(topic.len() <= STRING_BYTES_MAX);
        buf.put_i16(topic.len() as i16);
        buf.put_slice(topic.as_bytes());
        buf.put_i32(partitions.len() as i32);
        partitions.iter().for_each(|partition| buf.put_i32(*partition));
    }
    buf.put_i32(-1);
    buf.freeze()
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

    #[test]
    fn reads_a_whole_subscription_of_each_version() {
        let head = |version: u8| [&[0, version][..], b"\0\0\0\x01\0\x01a\xff\xff\xff\xff"].concat();
        let owned = b"\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\x01\0\0\0\x02".to_vec();
        let v0 = read_subscription(&head(0)).unwrap();
        assert_eq!((v0.version, v0.topics, v0.owned.len(), v0.rack_id), (0, vec!["a".to_owned()], 0, None));
        let v3 = [head(3), owned.clone(), b"\0\0\0\x07\0\x02r1".to_vec()].concat();
        let read = read_subscription(&v3).unwrap();
        assert_eq!((read.owned, read.rack_id), (vec![("a".to_owned(), vec![1, 2])], Some("r1".to_owned())));
        for len in 0..v3.len() {
            assert_eq!(read_subscription(&v3[..len]), None, "cut at {len}");
        }
        assert_eq!(read_subscription(&[head(1), owned].concat()).unwrap().owned.len(), 1);
    }

    #[test]
    fn assignments_come_back_as_written() {
        let partitions = vec![("a".to_owned(), vec![0, 5]), ("b".to_owned(), vec![])];
        let bytes = write_assignment(9, &partitions);
        assert_eq!(&bytes[..2], [0, 3], "no version that nobody knows");
        assert_eq!(read_assignment(&bytes), Some(EmbeddedAssignment { partitions, has_user_data: false }));
        let own = [&write_assignment(0, &vec![])[..6], b"\0\0\0\x02hi"].concat();
        assert!(read_assignment(&own).unwrap().has_user_data);
        assert_eq!(read_assignment(b""), None);
    }
}
