//! What a client accepts: `accept-encoding` (RFC 9110, section 12.5.3).

use crate::config::Encoding;

/// The best of what is offered, by the client's weights, and among equals by the operator's order. None: the client wants it as it is.
pub(crate) fn choose(accepted: &[u8], offered: &[Encoding]) -> Option<Encoding> {
    let weight = |name: &str| {
        let entries = || accepted.split(|byte| *byte == b',').filter_map(entry);
        let named = entries()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()) || (name == "gzip" && known.eq_ignore_ascii_case(b"x-gzip")));
        named.or_else(|| entries().find(|(known, _)| *known == b"*")).map_or(0, |(_, weight)| weight)
    };
    // Whoever names its own form with more weight wants that. Unnamed, it is what is left when nothing else is accepted.
    let identity = accepted.split(|byte| *byte == b',').filter_map(entry).find(|(name, _)| name.eq_ignore_ascii_case(b"identity"));
    let mut best = None;
    for encoding in offered {
        let weight = weight(encoding.name());
        if weight > best.map_or(0, |(_, most)| most) && weight >= identity.map_or(0, |(_, weight)| weight) {
            best = Some((*encoding, weight));
        }
    }
    best.map(|(encoding, _)| encoding)
}

/// A coding and its weight in thousandths; what is no weight is none.
fn entry(text: &[u8]) -> Option<(&[u8], u32)> {
    let mut parts = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = parts.find_map(|part| {
        let (key, value) = part.split_at_checked(2)?;
        key.eq_ignore_ascii_case(b"q=").then_some(value)
    });
    Some((name, weight.map_or(1000, thousandths)))
}

fn thousandths(text: &[u8]) -> u32 {
    let digits = |text: &[u8]| {
        (text.len() <= 3 && text.iter().all(u8::is_ascii_digit))
            .then(|| text.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0')))
    };
    match text {
        [b'1', rest @ ..] if rest.iter().all(|byte| matches!(byte, b'.' | b'0')) => 1000,
        [b'0'] => 0,
        [b'0', b'.', rest @ ..] => digits(rest).map_or(0, |number| number * 10_u32.pow(3 - rest.len() as u32)),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_decide_and_then_the_order_of_the_offer() {
        let (br, gzip) = (Some(Encoding::Br), Some(Encoding::Gzip));
        for (accepted, chosen) in [
            ("", None),
            ("gzip", gzip),
            ("x-gzip", gzip),
            ("GZIP", gzip),
            ("br", br),
            ("gzip, br", br),
            ("gzip;q=1.0, br;q=0.9", gzip),
            ("gzip;q=0.5, br;q=0.5", br),
            ("gzip;q=0, br;q=0", None),
            ("gzip;q=0, *", br),
            ("*", br),
            ("*;q=0.1, gzip;q=0.2", gzip),
            ("br;q=0, *;q=1", gzip),
            ("identity", None),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.6", gzip),
            ("deflate, zstd", None),
            ("gzip ; q=0.001", gzip),
            ("gzip;q=nonsense", None),
            ("gzip;q=0.0000", None),
            ("gzip;q=2", None),
            (",,;,", None),
        ] {
            assert_eq!(choose(accepted.as_bytes(), &[Encoding::Br, Encoding::Gzip]), chosen, "{accepted}");
        }
        assert_eq!(choose(b"br, gzip", &[Encoding::Gzip]), gzip);
    }
}
