//! Which hosts and addresses may be called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::OnceLock;

use http::Uri;

/// What may be called: every public address by https, and what the rules add.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Rules,
    /// Where the sandbox in this process listens, once somebody has begun it; `None`: there is room for none.
    sandbox: Option<OnceLock<SocketAddr>>,
}

/// A comma-separated list of [`AllowRule`]s, as `KEYHOLDER_EGRESS_ALLOW` holds it.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<AllowRule>);

/// A host or network that may be reached although private, or by plain http.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowRule {
    /// A host name, or `*.example.internal` for all below it; with a port, only that port.
    Host(String, Option<u16>),
    /// An address or network in CIDR notation.
    Network(IpAddr, u8),
    /// One address, one port.
    Socket(IpAddr, u16),
}

/// An entry that is neither a host nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is neither a host name, an address nor a network; write for example `127.0.0.1`, `10.1.0.0/16` or `*.internal`"
)]
pub struct BadRule(String);

impl Policy {
    /// The policy with these exceptions.
    pub fn new(rules: Rules) -> Self {
        Self { rules, sandbox: None }
    }

    /// The same, with room for a sandbox in this process.
    pub fn with_room_for_sandbox(self) -> Self {
        Self { sandbox: Some(OnceLock::new()), ..self }
    }

    pub(super) fn has_room_for_sandbox(&self) -> bool {
        self.sandbox.is_some()
    }

    /// Lets this loopback address be called, as the sandbox's; `false` where there is no room for one.
    pub(super) fn admit_sandbox(&self, address: SocketAddr) -> bool {
        let room = self.sandbox.as_ref().filter(|_| address.ip().is_loopback());
        room.is_some_and(|room| *room.get_or_init(|| address) == address)
    }

    /// Adds an exception.
    pub fn allow(&mut self, rule: AllowRule) {
        self.rules.0.push(rule);
    }

    /// The check before DNS: scheme, and addresses written into the URL (which never reach the resolver).
    pub(super) fn check_uri(&self, uri: &Uri) -> Result<(), String> {
        let host = uri.host().ok_or("the URL has no host")?;
        let port = port_of(uri);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let literal = bare.parse::<IpAddr>().ok();
        let listed = self.lists_host(bare, port) || literal.is_some_and(|address| self.lists_address(address, port));
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if listed || (literal.is_none() && bare == "localhost" && self.lists_loopback(port)) => {}
            Some("http") => {
                return Err(format!("plain http is refused; use https, or list `{bare}` in KEYHOLDER_EGRESS_ALLOW"));
            }
            _ => return Err("only https URLs are called".to_owned()),
        }
        match literal {
            Some(address) if !listed && !is_public(address) => Err(refusal(address)),
            _ => Ok(()),
        }
    }

    /// The check after DNS: which of a name's addresses may be connected to.
    pub(super) fn permits(&self, host: &str, address: IpAddr, port: u16) -> Result<(), String> {
        if is_public(address) || self.lists_host(host, port) || self.lists_address(address, port) {
            Ok(())
        } else {
            Err(refusal(address))
        }
    }

    fn lists_host(&self, host: &str, port: u16) -> bool {
        self.rules.0.iter().any(|rule| {
            matches!(rule, AllowRule::Host(pattern, only)
                if host_matches(pattern, host) && only.is_none_or(|only| only == port))
        })
    }

    fn lists_address(&self, address: IpAddr, port: u16) -> bool {
        if self.sandbox.as_ref().and_then(OnceLock::get) == Some(&SocketAddr::new(address, port)) {
            return true;
        }
        self.rules.0.iter().any(|rule| match rule {
            AllowRule::Network(network, bits) => within(address, *network, *bits),
            AllowRule::Socket(only, at) => *only == address && *at == port,
            AllowRule::Host(..) => false,
        })
    }

    fn lists_loopback(&self, port: u16) -> bool {
        self.lists_address(Ipv4Addr::LOCALHOST.into(), port) || self.lists_address(Ipv6Addr::LOCALHOST.into(), port)
    }
}

impl FromStr for Rules {
    type Err = BadRule;

    fn from_str(list: &str) -> Result<Self, BadRule> {
        list.split([',', ' ']).filter(|entry| !entry.is_empty()).map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

impl FromStr for AllowRule {
    type Err = BadRule;

    fn from_str(entry: &str) -> Result<Self, BadRule> {
        let bad = || BadRule(entry.to_owned());
        let bare = entry.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(AllowRule::Network(address, width(address)));
        }
        if let Ok(socket) = entry.parse::<SocketAddr>() {
            return Ok(AllowRule::Socket(socket.ip(), socket.port()));
        }
        if let Some((address, bits)) = entry.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_| bad())?;
            let bits = bits.parse().ok().filter(|bits| *bits <= width(address)).ok_or_else(bad)?;
            return Ok(AllowRule::Network(address, bits));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().map_err(|_| bad())?)),
            None => (entry, None),
        };
        let name = host.strip_prefix("*.").unwrap_or(host);
        let fits = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
            // A mistyped address must not become a host name that allows nothing.
            && !name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        fits.then(|| AllowRule::Host(host.to_ascii_lowercase(), port)).ok_or_else(bad)
    }
}

/// The port a request goes to.
pub(super) fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

fn refusal(address: IpAddr) -> String {
    format!("{address} is a private or reserved address; list it in KEYHOLDER_EGRESS_ALLOW if this is meant")
}

/// `*.example.com` means all below `example.com`; anything else is compared whole, without regard to case.
pub(crate) fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host
            .len()
            .checked_sub(parent.len() + 1)
            .is_some_and(|dot| host.as_bytes()[dot] == b'.' && host[dot + 1..].eq_ignore_ascii_case(parent)),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn within(address: IpAddr, network: IpAddr, bits: u8) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(a.to_bits()), u128::from(n.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (a.to_bits(), n.to_bits(), 128),
        (IpAddr::V6(a), n @ IpAddr::V4(_)) => {
            return a.to_ipv4_mapped().is_some_and(|a| within(a.into(), n, bits));
        }
        (IpAddr::V4(_), IpAddr::V6(_)) => return false,
    };
    let ignored = u32::from(width - bits);
    ignored == 128 || address >> ignored == network >> ignored
}

/// Globally reachable, by the IANA special-purpose registries (RFC 6890 and successors).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(a == 0
        || address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b)))
}

/// Only 2000::/3 is handed out; inside it, what embeds or documents is judged by what it embeds or refused.
fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    let parts = address.segments();
    let embedded = |high: u16, low: u16| is_public_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match parts {
        [0x0064, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Teredo, benchmarking, ORCHID and the rest of 2001::/23.
        [0x2001, second, ..] if second < 0x0200 => false,
        [0x2001, 0x0db8, ..] => false,
        [0x3fff, second, ..] if second < 0x1000 => false,
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn special_ranges_are_not_public() {
        let private = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
        ];
        for address in private {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
        for address in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "2606:4700::1111", "64:ff9b::101:101"] {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn rules_read_hosts_addresses_networks_and_ports() {
        let policy = Policy::new("127.0.0.1:8790, 10.0.0.0/8,*.internal,files.test:81".parse().unwrap());
        let check = |url: &str| policy.check_uri(&url.parse().unwrap());
        assert!(check("http://127.0.0.1:8790/token").is_ok());
        assert!(check("http://127.0.0.1:8791/token").is_err());
        assert!(check("http://localhost:8790/token").is_ok());
        assert!(check("https://10.9.9.9/").is_ok());
        assert!(check("http://a.internal/").is_ok());
        assert!(check("http://internal/").is_err());
        assert!(check("http://notinternal/").is_err());
        assert!(check("http://files.test:81/").is_ok());
        assert!(check("http://files.test/").is_err());
        assert!(check("ftp://files.test:81/").is_err());
        let permits = |name: &str, address: &str, port| policy.permits(name, address.parse().unwrap(), port).is_ok();
        assert!(permits("x.internal", "192.168.0.1", 443));
        assert!(!permits("evil.example", "192.168.0.1", 443));
        assert!(permits("files.test", "192.168.0.1", 81) && !permits("files.test", "192.168.0.1", 443));
        assert!(permits("localhost", "127.0.0.1", 8790) && !permits("localhost", "127.0.0.1", 22));
        for wrong in ["10.0.0.0/33", "300.1.2", "a/b", "host:99999"] {
            assert!(wrong.parse::<Rules>().is_err(), "{wrong}");
        }
    }
}
