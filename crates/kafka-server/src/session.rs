//! Who is at the other end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The principal of clients that did not authenticate themselves.
pub const ANONYMOUS: &str = "User:ANONYMOUS";

/// What a connection knows of its client. A connection begins with [`Session::anonymous`]; what authenticates its client puts another in its place,
/// and requests from then on carry that one.
#[derive(Debug)]
pub struct Session {
    /// `Type:name`
    pub principal: String,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its address as Java writes it (`getHostAddress`), which is what ACLs name.
    pub host: String,
}

impl Session {
    /// A client that has not authenticated itself.
    pub fn anonymous(peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self { principal: ANONYMOUS.to_owned(), peer, host: host_address(peer.ip()) })
    }
}

/// An address as Java writes it: IPv6 without abbreviation.
fn host_address(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => ip.segments().map(|segment| format!("{segment:x}")).join(":"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_look_as_java_writes_them() {
        for (peer, host) in [
            ("127.0.0.1:9", "127.0.0.1"),
            ("[::1]:9", "0:0:0:0:0:0:0:1"),
            ("[::ffff:10.0.0.1]:9", "10.0.0.1"),
            ("[fe80::ab]:9", "fe80:0:0:0:0:0:0:ab"),
        ] {
            assert_eq!(Session::anonymous(peer.parse().unwrap()).host, host);
        }
    }
}
