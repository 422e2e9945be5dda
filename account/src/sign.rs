//! Signatures by a shared key: of requests and of account SAS (HMAC-SHA256).

use dray_engine::api::azure::base64;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::credential::AccountKey;

/// Version of the service's REST interface that every request names. Old enough for emulators, new enough for blocks of
/// 4000 MiB and names that XML cannot hold.
pub const VERSION: &str = "2021-12-02";

/// Headers that are signed by their values alone, in this order; `Content-Length` and `Date` apart.
const PLAIN: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// The string to sign of a request: `path` as it is sent, encoded; `query` as names and values, decoded.
pub fn text_to_sign(
    account: &str,
    method: &str,
    path: &str,
    query: &[(&str, String)],
    headers: &[(String, String)],
) -> String {
    let mut text = format!("{method}\n");
    for name in PLAIN {
        let value = headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name)).map_or("", |(_, v)| v.trim());
        // Since version 2015-02-21 a length of zero is signed as nothing.
        if !(name == "content-length" && value == "0") {
            text.push_str(value);
        }
        text.push('\n');
    }
    let mut own: Vec<(String, &str)> = headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    own.sort();
    for (name, value) in own {
        text.push_str(&format!("{name}:{value}\n"));
    }
    text.push_str(&format!("/{account}{path}"));
    let mut query: Vec<(String, &str)> =
        query.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
    query.sort();
    for (name, value) in query {
        text.push_str(&format!("\n{name}:{value}"));
    }
    text
}

/// The signature of a text, in base64.
pub fn signature(key: &AccountKey, text: &str) -> Zeroizing<String> {
    // HMAC takes keys of any length.
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key.bytes()).unwrap_or_else(|_| unreachable!());
    mac.update(text.as_bytes());
    let mut out = Vec::new();
    base64::encode(&mac.finalize().into_bytes(), &mut out);
    Zeroizing::new(String::from_utf8(out).unwrap_or_default())
}

/// The value of `Authorization`.
pub fn authorization(account: &str, key: &AccountKey, text: &str) -> Zeroizing<String> {
    Zeroizing::new(format!("SharedKey {account}:{}", *signature(key, text)))
}

/// An account SAS for the blob service: `rights` such as `rl`, until `expiry` (`2026-11-29T12:00:00Z`).
pub fn account_sas(account: &str, key: &AccountKey, rights: &str, expiry: &str, only_https: bool) -> Zeroizing<String> {
    let protocol = if only_https { "https" } else { "https,http" };
    // Service blob; resources service, container, object; no start, no addresses, no encryption scope.
    let text = format!("{account}\n{rights}\nb\nsco\n\n{expiry}\n\n{protocol}\n{VERSION}\n\n");
    let signed = signature(key, &text);
    Zeroizing::new(format!(
        "sv={VERSION}&ss=b&srt=sco&sp={rights}&se={}&spr={}&sig={}",
        encoded(expiry, false),
        encoded(protocol, false),
        encoded(&signed, false)
    ))
}

/// Percent-encoding of everything that no URI may hold as it is; slashes of a path stay.
pub fn encoded(text: &str, is_path: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte as char),
            b'/' if is_path => out.push('/'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The text behind percent-encoding; what is no encoding stays.
pub fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let pair = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.filter(|_| *first == b'%').and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[2..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The emulators' well-known key.
    const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    fn key() -> AccountKey {
        AccountKey::parse(KEY).expect("a key")
    }

    #[test]
    fn the_published_request_gives_the_published_text() {
        // "Authorize with Shared Key", the Get Container Metadata sample of version 2009-09-19 and later.
        let headers = [("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT"), ("x-ms-version", "2015-02-21")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let query = [("comp", "metadata".to_owned()), ("restype", "container".into()), ("timeout", "20".into())];
        assert_eq!(
            text_to_sign("myaccount", "GET", "/mycontainer", &query, &headers),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
        let empty = text_to_sign("a", "PUT", "/c", &[], &[("Content-Length".into(), "0".into())]);
        assert_eq!(empty, "PUT\n\n\n\n\n\n\n\n\n\n\n\n/a/c");
        let full = text_to_sign("a", "PUT", "/c", &[], &[("Content-Length".into(), "7".into())]);
        assert_eq!(full, "PUT\n\n\n7\n\n\n\n\n\n\n\n\n/a/c");
    }

    #[test]
    fn the_hash_is_rfc_4231_s() {
        // Test case 2: key "Jefe", data "what do ya want for nothing?".
        let mut key = Vec::new();
        base64::encode(b"Jefe", &mut key);
        let key = AccountKey::parse(std::str::from_utf8(&key).expect("base64")).expect("a key");
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let bytes: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&wanted[2 * i..2 * i + 2], 16).expect("hex")).collect();
        let mut coded = Vec::new();
        base64::encode(&bytes, &mut coded);
        assert_eq!(signature(&key, "what do ya want for nothing?").as_bytes(), coded);
    }

    #[test]
    fn names_are_encoded_and_found_again() {
        for name in ["a b", "%2F", "%", "#?", "umläut", "\u{1F600}", "a+b&c=d", "x/../y", "trail."] {
            let coded = encoded(name, true);
            assert!(coded.bytes().all(|b| b.is_ascii_graphic() && !b"#?+&= ".contains(&b)), "{coded}");
            assert_eq!(decoded(&coded), name);
        }
        assert_eq!(encoded("a/b", false), "a%2Fb");
        assert_eq!(decoded("100%"), "100%");
    }

    #[test]
    fn a_sas_names_no_key() {
        let sas = account_sas("devstoreaccount1", &key(), "rl", "2030-01-01T00:00:00Z", true);
        assert!(
            sas.starts_with("sv=2021-12-02&ss=b&srt=sco&sp=rl&se=2030-01-01T00%3A00%3A00Z&spr=https&sig="),
            "{}",
            *sas
        );
        assert!(!format!("{:?}", key()).contains("Eby8"));
    }
}
