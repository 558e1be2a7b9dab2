//! Protobuf by hand: the few kinds of fields that OTLP's messages have.

/// Appends a varint.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a whole number; zero, the default, is left out.
pub(crate) fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    if value != 0 {
        varint(out, field << 3);
        varint(out, value);
    }
}

/// Appends a number of eight bytes.
pub(crate) fn fixed64(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3 | 1);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends a number of four bytes.
pub(crate) fn fixed32(out: &mut Vec<u8>, field: u64, value: u32) {
    varint(out, field << 3 | 5);
    out.extend_from_slice(&value.to_le_bytes());
}

/// Appends bytes, a text, or a message that is encoded already; nothing is left out.
pub(crate) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// Appends a message that `fill` encodes.
pub(crate) fn message(out: &mut Vec<u8>, field: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    fill(&mut inner);
    bytes(out, field, &inner);
}

/// A value of a tag.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Any<'a> {
    Text(&'a str),
    Number(i64),
}

/// Appends `opentelemetry.proto.common.v1.KeyValue`.
pub(crate) fn tag(out: &mut Vec<u8>, field: u64, key: &str, value: Any<'_>) {
    message(out, field, |pair| {
        bytes(pair, 1, key.as_bytes());
        message(pair, 2, |any| match value {
            Any::Text(text) => bytes(any, 1, text.as_bytes()),
            // Zero is a value here, not a default.
            Any::Number(number) => {
                varint(any, 3 << 3);
                varint(any, number.cast_unsigned());
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_encoded_as_protobuf_does() {
        let mut out = Vec::new();
        number(&mut out, 6, 300);
        number(&mut out, 7, 0);
        bytes(&mut out, 1, b"ab");
        fixed64(&mut out, 7, 1);
        fixed32(&mut out, 16, 257);
        assert_eq!(out, b"\x30\xac\x02\x0a\x02ab\x39\x01\0\0\0\0\0\0\0\x85\x01\x01\x01\0\0");
        out.clear();
        tag(&mut out, 9, "k", Any::Number(-1));
        assert_eq!(out, b"\x4a\x10\x0a\x01k\x12\x0b\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    }
}
