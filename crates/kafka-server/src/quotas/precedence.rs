//! Which quota holds for a client: the most special one that is set, in Kafka's order.

use std::collections::BTreeMap;

use siltstone_metadata::quotas::{CLIENT_ID, QuotaEntity, Quotas, USER};

/// Who shares a window: all that one quota is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Sensor {
    /// A user's clients of this id.
    UserClient(String, String),
    /// All of a user's clients.
    User(String),
    /// Whoever calls itself so.
    Client(String),
    /// An address.
    Ip(String),
    /// All that connect.
    Listener,
    /// Those for whom there is no room.
    Overflow,
}

/// The limit of `quota` for this client, and whose window it counts in.
pub(super) fn limit(quotas: &BTreeMap<QuotaEntity, Quotas>, quota: &str, user: &str, client: &str) -> Option<(Sensor, f64)> {
    if quotas.is_empty() {
        return None;
    }
    let both = || Sensor::UserClient(user.to_owned(), client.to_owned());
    let user_only = || Sensor::User(user.to_owned());
    let client_only = || Sensor::Client(client.to_owned());
    type Part<'a> = Option<Option<&'a str>>;
    let (named_user, named_client): (Part<'_>, Part<'_>) = (Some(Some(user)), Some(Some(client)));
    let default: Part<'_> = Some(None);
    let order: [(Part<'_>, Part<'_>, &dyn Fn() -> Sensor); 8] = [
        (named_user, named_client, &both),
        (named_user, default, &both),
        (named_user, None, &user_only),
        (default, named_client, &both),
        (default, default, &both),
        (default, None, &user_only),
        (None, named_client, &client_only),
        (None, default, &client_only),
    ];
    order.into_iter().find_map(|(user, client, sensor)| {
        let parts = user.map(|name| (USER, name)).into_iter().chain(client.map(|name| (CLIENT_ID, name)));
        let value = quotas.get(&QuotaEntity::of(parts))?.get(quota)?;
        Some((sensor(), value.0))
    })
}
