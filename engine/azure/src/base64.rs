//! Base64 (RFC 4648 section 4), for block ids and `Content-MD5`.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes` with padding.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for chunk in bytes.chunks(3) {
        let word = u32::from_be_bytes([0, chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)]);
        for i in 0..4 {
            let sextet = (word >> (18 - 6 * i) & 0x3F) as usize;
            out.push(if i <= chunk.len() { ALPHABET[sextet] } else { b'=' });
        }
    }
}

/// The bytes of a padded base64 text; `None` for anything else.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(4) {
        return None;
    }
    let digits = bytes.iter().rposition(|b| *b != b'=').map_or(0, |i| i + 1);
    let padding = bytes.len() - digits;
    if padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    for chunk in bytes[..digits].chunks(4) {
        let mut word = 0u32;
        for i in 0..4 {
            let sextet = match chunk.get(i) {
                Some(digit) => ALPHABET.iter().position(|a| a == digit)? as u32,
                None => 0,
            };
            word = word << 6 | sextet;
        }
        let [_, a, b, c] = word.to_be_bytes();
        out.extend_from_slice(&[a, b, c][..chunk.len() * 3 / 4]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_4648_vectors_hold_both_ways() {
        let vectors =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in vectors {
            let mut out = Vec::new();
            encode(plain.as_bytes(), &mut out);
            assert_eq!(out, coded.as_bytes());
            assert_eq!(decode(coded).unwrap(), plain.as_bytes());
        }
        for bad in ["Z", "Zg=", "Z===", "====", "Zm9v=Zm9", "Zm 9v"] {
            assert!(decode(bad).is_none(), "{bad}");
        }
    }
}
