//! Time-based one-time passwords (RFC 6238): SHA-1, six digits, a new one every thirty seconds, as every authenticator
//! app makes them.

use data_encoding::BASE32_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kernel::Timestamp;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

pub(super) const DIGITS: usize = 6;

/// How long one is good for, in seconds (RFC 6238 §4.1).
const STEP: i64 = 30;

/// How many steps a clock may be off, either way (RFC 6238 §5.2).
const OFF: i64 = 1;

/// As long as what comes out of the hash (RFC 4226 §4, R6).
pub(super) const SECRET: usize = 20;

/// The step of a moment (RFC 6238 §4.2).
fn step(now: Timestamp) -> i64 {
    now.as_secs().div_euclid(STEP)
}

/// The number of one step (RFC 4226 §5.3). None for a key that no key can be.
fn code(secret: &[u8], step: i64) -> Option<String> {
    let mut mac = <Hmac<Sha1>>::new_from_slice(secret).ok()?;
    mac.update(&step.to_be_bytes());
    let hash = mac.finalize().into_bytes();
    let at = usize::from(hash.last()? & 0x0f);
    let four = hash.get(at..at + 4)?.first_chunk::<4>()?;
    let number = u32::from_be_bytes(*four) & 0x7fff_ffff;
    Some(format!("{:0DIGITS$}", number % 10_u32.pow(DIGITS as u32)))
}

/// The step whose number was typed, where it is one of this moment and later than `last`, the one that was used last:
/// each is good once (RFC 6238 §5.2). All are compared, and each as a whole.
pub(super) fn accepts(secret: &[u8], typed: &str, now: Timestamp, last: i64) -> Option<i64> {
    let mut found = None;
    for step in step(now) - OFF..=step(now) + OFF {
        let right = code(secret, step).is_some_and(|code| code.as_bytes().ct_eq(typed.as_bytes()).into());
        if right && step > last {
            found = Some(step);
        }
    }
    found
}

/// The secret as people type it where no picture can be read (RFC 4648 §6, without padding).
pub(super) fn written(secret: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(BASE32_NOPAD.encode(secret))
}

/// The address that authenticator apps read out of a picture.
pub(super) fn uri(secret: &[u8], app: &str, account: &str) -> Zeroizing<String> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let (app, account, secret) = (encoded(app), encoded(account), written(secret));
    let secret = secret.as_str();
    Zeroizing::new(format!(
        "otpauth://totp/{app}:{account}?secret={secret}&issuer={app}&algorithm=SHA1&digits={DIGITS}&period={STEP}"
    ))
}

/// The code of a moment, or so many steps off.
#[cfg(test)]
pub(super) fn tests_code(secret: &[u8], now: Timestamp, off: i64) -> String {
    code(secret, step(now) + off).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"12345678901234567890";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn the_vectors_of_rfc_6238_appendix_b_come_out() {
        for (seconds, eight) in [
            (59, "94287082"),
            (1_111_111_109, "07081804"),
            (1_111_111_111, "14050471"),
            (1_234_567_890, "89005924"),
            (2_000_000_000, "69279037"),
            (20_000_000_000, "65353130"),
        ] {
            // Six digits are the last of eight.
            assert_eq!(code(SECRET, step(at(seconds))).as_deref(), Some(&eight[2..]), "{seconds}");
        }
    }

    #[test]
    fn the_vectors_of_rfc_4226_appendix_d_come_out() {
        let expected = [
            "755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871",
            "520489",
        ];
        for (counter, expected) in (0..).zip(expected) {
            assert_eq!(code(SECRET, counter).as_deref(), Some(expected), "{counter}");
        }
    }

    #[test]
    fn a_number_is_good_for_a_step_before_and_after_and_once() {
        let now = at(1_234_567_890);
        let here = step(now);
        let of = |step| code(SECRET, step).unwrap();
        for off in -1..=1 {
            assert_eq!(accepts(SECRET, &of(here + off), now, 0), Some(here + off));
            assert_eq!(accepts(SECRET, &of(here + off), now, here + off), None, "a second time");
        }
        assert_eq!(accepts(SECRET, &of(here - 1), now, here), None, "one before the last that was used");
        for bad in [of(here - 2), of(here + 2), String::new(), "00000".to_owned(), format!("{}0", of(here))] {
            assert_eq!(accepts(SECRET, &bad, now, 0), None, "{bad}");
        }
        assert_eq!(accepts(b"another secret", &of(here), now, 0), None);
    }

    #[test]
    fn a_name_cannot_become_a_part_of_the_address() {
        assert_eq!(
            uri(b"12345678901234567890", "Shöp & Co?secret=x", "ada+x@example.org").as_str(),
            "otpauth://totp/Sh%C3%B6p%20%26%20Co%3Fsecret%3Dx:ada%2Bx%40example%2Eorg\
             ?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=Sh%C3%B6p%20%26%20Co%3Fsecret%3Dx\
             &algorithm=SHA1&digits=6&period=30"
        );
    }
}
