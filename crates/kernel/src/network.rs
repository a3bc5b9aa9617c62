//! Networks: all addresses that begin with the same bits.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks as an operator lists them: `10.0.0.0/8`, `fd00::/8`, or one address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    bits: u8,
}

impl Networks {
    /// The networks that are named so; or the first name that is none.
    ///
    /// # Errors
    /// The name.
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.map(|text| Network::read(text).ok_or(text)).collect::<Result<_, _>>().map(Self)
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Networks) -> Networks {
        let mut both: Vec<Network> = Vec::new();
        for (one, two) in self.0.iter().flat_map(|one| other.0.iter().map(move |two| (one, two))) {
            // Of two networks, one is in the other or they have nothing in common.
            let narrow = if one.bits >= two.bits { one } else { two };
            let wide = if one.bits >= two.bits { two } else { one };
            if wide.has(narrow.address) && !both.contains(narrow) {
                both.push(narrow.clone());
            }
        }
        Networks(both)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as it is written.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|network| format!("{}/{}", network.address, network.bits)).collect()
    }

    /// Whether an address is in one of them.
    #[must_use]
    pub fn have(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.has(address))
    }
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|bits| *bits <= most))?;
        let (address, bits) = match address.to_canonical() {
            // Addresses are compared as what they are: one of IPv4 that is written as IPv6 is one of IPv4.
            IpAddr::V4(inner) if address.is_ipv6() => (IpAddr::V4(inner), bits.checked_sub(96)?),
            _ => (address, bits),
        };
        Some(Self { address: first(address, bits), bits })
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

/// The first address of the network that this one is in: all bits behind its length are 0.
fn first(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or_default();
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or_default();
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

impl fmt::Display for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, Network { address, bits }) in self.0.iter().enumerate() {
            write!(f, "{}\"{address}/{bits}\"", if i > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Networks;

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "::ffff:10.0.0.0/95",
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "localhost",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Networks::of([bad].into_iter()), Err(bad));
        }
        let shown = Networks::of(["10.0.0.0/8", "::1"].into_iter()).unwrap().to_string();
        assert_eq!(shown, "\"10.0.0.0/8\", \"::1/128\"");
    }

    #[test]
    fn a_network_is_the_same_however_it_is_written() {
        let of = |name: &str| Networks::of(std::iter::once(name)).unwrap();
        for (written, is, has, has_not) in [
            ("::ffff:10.1.2.3", "10.1.2.3/32", "10.1.2.3", "10.1.2.4"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8", "::ffff:10.9.9.9", "11.0.0.1"),
            ("::ffff:0.0.0.0/96", "0.0.0.0/0", "203.0.113.9", "::1"),
            ("10.1.2.3/8", "10.0.0.0/8", "10.9.9.9", "11.0.0.1"),
            ("10.1.2.3/0", "0.0.0.0/0", "203.0.113.9", "::1"),
            ("fd00::1/8", "fd00::/8", "fd12::1", "fe80::1"),
            ("fd00::1/0", "::/0", "::1", "10.0.0.1"),
        ] {
            let network = of(written);
            assert_eq!((network.names(), &network), (vec![is.to_owned()], &of(is)), "{written}");
            assert!(
                network.have(has.parse().unwrap()) && !network.have(has_not.parse().unwrap()),
                "{written}"
            );
        }
        assert_eq!(of("::ffff:10.0.0.0/104").intersection(&of("10.1.0.0/16")).names(), ["10.1.0.0/16"]);
    }

    #[test]
    fn what_is_in_both_is_the_narrower_of_each_two() {
        let of = |names: &[&str]| Networks::of(names.iter().copied()).unwrap();
        for (one, two, both) in [
            (&["10.0.0.0/8"][..], &["10.1.0.0/16", "11.0.0.0/8"][..], &["10.1.0.0/16"][..]),
            (&["10.1.2.3"], &["0.0.0.0/0", "::/0"], &["10.1.2.3/32"]),
            (&["10.0.0.0/8"], &["11.0.0.0/8", "::/0"], &[]),
            (&["10.0.0.0/8", "10.0.0.0/8"], &["10.0.0.0/8"], &["10.0.0.0/8"]),
        ] {
            assert_eq!(of(one).intersection(&of(two)).names(), both);
            assert_eq!(of(two).intersection(&of(one)).names(), both);
        }
    }

    #[test]
    fn an_address_is_in_a_network_in_whichever_way_it_is_written() {
        let networks = Networks::of(["10.0.0.0/8", "fd00::/8", "192.0.2.1"].into_iter()).unwrap();
        for (address, expected) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("fd12::1", true),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("11.0.0.1", false),
            ("fe00::1", false),
        ] {
            assert_eq!(networks.have(address.parse().unwrap()), expected, "{address}");
        }
    }
}
