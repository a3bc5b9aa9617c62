//! Who asks, where proxies stand before the platform: their word is taken, and nobody else's.

use std::fmt;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks that proxies of ours are in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

/// All addresses that begin with the same bits.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Network {
    /// Reads `address/bits`, or one address.
    fn read(text: &str) -> Option<Self> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
        Some(Self { address, bits })
    }

    fn has(&self, other: IpAddr) -> bool {
        let differs = |a: u128, b: u128, width: u32| {
            let rest = width - u32::from(self.bits);
            // A shift by the whole width would be none.
            (a ^ b).checked_shr(rest).unwrap_or_default() != 0
        };
        match (self.address, other) {
            (IpAddr::V4(a), IpAddr::V4(b)) => !differs(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => !differs(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

impl Proxies {
    /// The proxies in these networks; or the first that is none.
    pub fn of<'a>(networks: impl Iterator<Item = &'a str>) -> Result<Self, &'a str> {
        networks.map(|text| Network::read(text).ok_or(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Who asks: the peer, or where that is a proxy of ours, the last address in `X-Forwarded-For` that is not. Whatever
    /// stands before it may have been made up.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lines = headers.get_all(FORWARDED_FOR).iter().rev();
        let named = lines.flat_map(|line| line.to_str().unwrap_or("?").split(',').rev());
        for name in named {
            if !self.0.iter().any(|network| network.has(client)) {
                break;
            }
            // A proxy of ours that names nobody is all that is known.
            let Some(before) = address(name.trim()) else { break };
            client = before;
        }
        client
    }
}

/// An address as proxies write it: some add a port.
fn address(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    parsed.or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

impl fmt::Display for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Network { address, bits }) in self.0.iter().enumerate() {
            write!(f, "{}\"{address}/{bits}\"", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxies: &[&str], peer: &str, lines: &[&str]) -> String {
        let proxies = Proxies::of(proxies.iter().copied()).unwrap();
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn nobody_but_a_proxy_of_ours_says_who_asks() {
        let ours = ["10.0.0.0/8", "fd00::/8", "192.0.2.1"];
        for (peer, lines, expected) in [
            ("203.0.113.9", &["198.51.100.7"][..], "203.0.113.9"),
            ("10.1.2.3", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.1.2.3", &["198.51.100.7"], "198.51.100.7"),
            ("fd00::1", &["2001:db8::7"], "2001:db8::7"),
            ("10.1.2.3", &[], "10.1.2.3"),
            // What the client itself has sent stands first, and is not believed.
            ("10.1.2.3", &["192.168.0.1, 198.51.100.7"], "198.51.100.7"),
            ("10.1.2.3", &["192.168.0.1", "198.51.100.7"], "198.51.100.7"),
            ("10.1.2.3", &["192.168.0.1, 198.51.100.7, 10.9.9.9, 192.0.2.1"], "198.51.100.7"),
            ("10.1.2.3", &["10.4.4.4"], "10.4.4.4"),
            ("10.1.2.3", &["198.51.100.7:4711"], "198.51.100.7"),
            ("10.1.2.3", &["[2001:db8::7]:4711"], "2001:db8::7"),
            ("10.1.2.3", &["198.51.100.7, unknown"], "10.1.2.3"),
            ("10.1.2.3", &["", "198.51.100.7", ","], "10.1.2.3"),
            ("11.0.0.1", &["198.51.100.7"], "11.0.0.1"),
        ] {
            assert_eq!(client(&ours, peer, lines), expected, "{peer} {lines:?}");
        }
        assert_eq!(client(&[], "127.0.0.1", &["198.51.100.7"]), "127.0.0.1");
        assert_eq!(client(&["0.0.0.0/0"], "203.0.113.9", &["198.51.100.7"]), "198.51.100.7");
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in
            ["", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"]
        {
            assert_eq!(Proxies::of([bad].into_iter()), Err(bad));
        }
        let shown = Proxies::of(["10.0.0.0/8", "::1"].into_iter()).unwrap().to_string();
        assert_eq!(shown, "\"10.0.0.0/8\", \"::1/128\"");
    }
}
