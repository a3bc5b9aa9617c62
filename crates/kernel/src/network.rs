//! Networks: all addresses that begin with the same bits.

use std::fmt;
use std::net::IpAddr;

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
        for bad in
            ["", "10.0.0.0/33", "::/129", "10.0.0/8", "localhost", "10.0.0.0/", "10.0.0.0/-1", "10.0.0.0/8/8"]
        {
            assert_eq!(Networks::of([bad].into_iter()), Err(bad));
        }
        let shown = Networks::of(["10.0.0.0/8", "::1"].into_iter()).unwrap().to_string();
        assert_eq!(shown, "\"10.0.0.0/8\", \"::1/128\"");
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
