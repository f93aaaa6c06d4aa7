//! Subscriptions by regular expression (RE2 syntax): matched here against all topic names, whole names only, in linear time. Of the topics that match,
//! those are left out that the client may not describe whose heartbeat makes them be looked up, as in Kafka.

use std::borrow::Cow;
use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use super::{ConsumerGroup, ConsumerRecord, Turn};
use crate::cluster::ClusterView;

/// Longest expression that is compiled.
const REGEX_BYTES_MAX: usize = 8 * 1024;
/// Memory that one compiled expression may take.
const COMPILED_BYTES_MAX: usize = 1024 * 1024;
/// Expressions of a group are not resolved again within this time.
const REFRESH_INTERVAL_MIN_MS: i64 = 10_000;

/// What an expression matched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResolvedRegex {
    pub(crate) topics: BTreeSet<String>,
    /// Revision of the cluster's metadata that was searched.
    pub(crate) version: i64,
    pub(crate) timestamp_ms: i64,
}

/// Why an expression is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidRegex(pub(crate) String);

/// The expression, compiled to match whole names.
pub(super) fn compile(expression: &str) -> Result<Regex, InvalidRegex> {
    if expression.len() > REGEX_BYTES_MAX {
        return Err(InvalidRegex(format!("it is longer than {REGEX_BYTES_MAX} bytes")));
    }
    let unquoted = unquote(expression);
    // Alone first: within the group below, a stray parenthesis could pass.
    let build = |pattern: &str| RegexBuilder::new(pattern).size_limit(COMPILED_BYTES_MAX).build();
    let invalid = |error: regex::Error| InvalidRegex(error.to_string().lines().last().unwrap_or_default().trim().to_owned());
    build(&unquoted).map_err(invalid)?;
    build(&format!("^(?:{unquoted})$")).map_err(invalid)
}

/// RE2's `\Q…\E`, which the engine does not know, as escaped text.
fn unquote(expression: &str) -> Cow<'_, str> {
    if !expression.contains(r"\Q") {
        return Cow::Borrowed(expression);
    }
    let mut unquoted = String::with_capacity(expression.len());
    let mut rest = expression;
    while let Some(at) = find_quote(rest) {
        unquoted.push_str(&rest[..at]);
        let quoted = &rest[at + 2..];
        let (literal, after) = quoted.split_once(r"\E").unwrap_or((quoted, ""));
        unquoted.push_str(&regex::escape(literal));
        rest = after;
    }
    unquoted.push_str(rest);
    Cow::Owned(unquoted)
}

/// Where the next `\Q` begins that is not an escaped backslash and a Q.
fn find_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, char) in text.char_indices() {
        match char {
            'Q' if escaped => return Some(at - 1),
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

/// What each expression matches now, of the topics that the client may describe (I44).
fn resolve(expressions: Vec<String>, turn: &Turn<'_>) -> Vec<(String, ResolvedRegex)> {
    let version = i64::try_from(turn.cluster.revision()).unwrap_or(i64::MAX);
    let mut resolved: Vec<(String, Option<Regex>, ResolvedRegex)> = expressions
        .into_iter()
        .map(|expression| {
            // It was compiled when it came in; one from the log may be of another version's syntax, and then matches nothing.
            let compiled = compile(&expression).ok();
            (expression, compiled, ResolvedRegex { topics: BTreeSet::new(), version, timestamp_ms: turn.now_ms })
        })
        .collect();
    turn.cluster.for_each_topic_name(&mut |name| {
        let mut may_describe = None;
        for (_, compiled, found) in &mut resolved {
            let is_match = compiled.as_ref().is_some_and(|regex| regex.is_match(name));
            if is_match && *may_describe.get_or_insert_with(|| (turn.may_describe)(name)) {
                found.topics.insert(name.to_owned());
            }
        }
    });
    resolved.into_iter().map(|(expression, _, found)| (expression, found)).collect()
}

impl ConsumerGroup {
    /// True if expressions should be resolved: some never were, there are new topics, or it was long ago.
    pub(crate) fn needs_regex_refresh(&self, turn: &Turn<'_>) -> bool {
        if !self.subscriptions.has_regexes() {
            return false;
        }
        let Some(last) = self.regexes.values().next() else { return true };
        let age_ms = turn.now_ms.saturating_sub(last.timestamp_ms);
        let has_unresolved = || self.subscriptions.regexes().any(|regex| !self.regexes.contains_key(regex));
        let has_new_topics = || last.version < i64::try_from(turn.topics_created_at).unwrap_or(i64::MAX);
        age_ms > REFRESH_INTERVAL_MIN_MS
            && (has_unresolved() || has_new_topics() || age_ms > i64::from(turn.config.consumer_regex_refresh_interval_ms))
    }

    /// True if the target of a member with this expression still has topics of the one that it had before: when the new one matches nothing, Kafka
    /// leaves them to nobody until the group changes again.
    fn has_target_beyond_names(&self, regex: &str, cluster: &dyn ClusterView) -> bool {
        let members = self.members.values().filter(|member| member.regex() == Some(regex));
        let mut targets = members.filter_map(|member| Some((&member.profile.subscribed_topics, self.targets.get(&member.id)?)));
        targets
            .any(|(names, target)| target.keys().any(|topic| !cluster.topic_by_id(*topic).is_some_and(|topic| names.contains(topic.name))))
    }

    /// Matches all expressions against the topics there are, and raises the group epoch if that changes the subscriptions.
    pub(crate) fn refresh_regexes(&self, turn: &mut Turn<'_>) {
        let expressions = self.subscriptions.regexes().cloned().collect();
        let mut subscriptions = self.subscriptions.clone();
        let mut is_changed = false;
        for (regex, resolved) in resolve(expressions, turn) {
            let old = self.regexes.get(&regex).map(|old| &old.topics);
            if old.map_or(!resolved.topics.is_empty(), |old| *old != resolved.topics) {
                is_changed = true;
                if let Some(old) = old {
                    subscriptions.remove_matches(old);
                }
                subscriptions.add_matches(&resolved.topics);
            }
            is_changed |= old.is_none() && self.has_target_beyond_names(&regex, turn.cluster);
            turn.records.push(ConsumerRecord::Regex { regex, resolved: Some(resolved) });
        }
        let hash = subscriptions.metadata_hash(turn.cluster);
        if is_changed || hash != self.metadata_hash {
            turn.records.push(ConsumerRecord::Epoch(Some((self.epoch.saturating_add(1), hash))));
            turn.metadata_checked = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(expression: &str, name: &str) -> bool {
        compile(expression).unwrap().is_match(name)
    }

    #[test]
    fn whole_names_match_as_in_re2() {
        assert!(matches("foo.*", "foobar") && matches("^foo.*$", "foo") && matches("a|bc", "bc"));
        assert!(!matches("foo", "foobar") && !matches("bar", "foobar") && !matches("a|b", "ab"));
        assert!(matches(r"\Qa.b\E-\d+", "a.b-12") && !matches(r"\Qa.b\E", "axb") && matches(r"\Qa.", "a."));
        assert!(matches(r"\\Q", r"\Q") && matches("(?i)ORDERS", "orders") && matches("[[:alpha:]]+", "abc"));
        assert!(matches("", "") && !matches("", "a"));
    }

    #[test]
    fn bad_and_oversized_expressions_are_refused() {
        for bad in ["[", "(", "a)(b", "*", "(?=a)", r"(a)\1", "a{100000}", r"\pX"] {
            let refused = compile(bad);
            assert!(refused.is_err(), "{bad}");
            assert!(!refused.unwrap_err().0.is_empty());
        }
        assert!(compile(&"a".repeat(REGEX_BYTES_MAX + 1)).is_err());
        assert!(compile("(((a{100}){100}){100}){100}").is_err());
    }
}
