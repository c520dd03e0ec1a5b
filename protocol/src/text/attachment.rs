//! What is said about an attachment: where it is, what it is, what it is called.

use url::Url;

use super::{BadText, at_most, line::one_line};
use crate::limits;

/// An absolute `http` or `https` address as RFC 3986 writes it: ASCII, with a host, without a user or a password.
/// Everything else that a client may follow by a click (`javascript:`, `data:`, `file:`) is refused.
pub fn url(address: &str) -> Result<(), BadText> {
    let (size, max) = (address.len(), limits::MEDIA_URL_BYTES);
    if size > max {
        return Err(BadText::new(format!("{size} bytes, at most {max} are allowed")));
    }
    let whole = |why: &str| BadText::new(format!("{why}; an absolute http or https address is needed"));
    let allowed =
        |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
    if !address.bytes().all(allowed) {
        return Err(whole("a character that has to be percent-encoded"));
    }
    let escapes =
        address.split('%').skip(1).all(|e| e.len() >= 2 && e.as_bytes()[..2].iter().all(u8::is_ascii_hexdigit));
    if !escapes {
        return Err(whole("a % without two hexadecimal digits"));
    }
    let (scheme, rest) = address.split_once("://").ok_or_else(|| whole("no scheme and host"))?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(whole("another scheme"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(whole("a user or a password"));
    }
    if !authority
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'~' | b':' | b'[' | b']'))
    {
        return Err(whole("a host that is neither a name nor an IP address"));
    }
    // The parser is lenient (it would take `http:///host`), so it only has to agree about what is left.
    match Url::parse(address) {
        Ok(parsed) if !authority.is_empty() && parsed.has_host() => Ok(()),
        _ => Err(whole("no host")),
    }
}

/// A media type, `type/subtype` (RFC 6838), without parameters.
pub fn media_type(mime: &str) -> Result<(), BadText> {
    at_most(mime, limits::MEDIA_MIME_CHARS)?;
    let name = |n: &str| {
        n.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && n.bytes().all(|b| {
                b.is_ascii_alphanumeric() || matches!(b, b'!' | b'#' | b'$' | b'&' | b'-' | b'^' | b'_' | b'.' | b'+')
            })
    };
    match mime.split_once('/') {
        Some((top, sub)) if name(top) && name(sub) => Ok(()),
        _ => Err(BadText::new("a media type, type/subtype without parameters, is needed, for instance image/png")),
    }
}

/// The name of a file, as one component of a path on any system: whoever saves under it stays in the folder.
pub fn file_name(name: &str) -> Result<(), BadText> {
    at_most(name, limits::MEDIA_NAME_CHARS)?;
    one_line(name)?;
    let drive = name.as_bytes().get(1) == Some(&b':') && name.as_bytes()[0].is_ascii_alphabetic();
    let only_dots = name.chars().all(|c| c == '.' || c.is_whitespace());
    if drive || only_dots || name.contains(['/', '\\']) {
        return Err(BadText::new("a file name without a path is needed: no / and no \\, not . and not .."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for good in [
            "https://files.example/7c1e.jpg",
            "http://127.0.0.1:8080/a?b=c#d",
            "HTTPS://files.example",
            "https://[::1]/x",
            "https://xn--bcher-kva.example/%C3%BC",
            "https://files.example/a@b",
        ] {
            assert_eq!(url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            " ",
            "files.example/x",
            "/x",
            "//files.example/x",
            "https:",
            "https://",
            "https:///x",
            "https:files.example",
            "https://?x",
            "javascript:alert(1)",
            "JaVaScRiPt://x%0aalert(1)",
            "javascript://files.example/%0aalert(1)",
            "data:text/html,<b>",
            "file:///etc/passwd",
            "ftp://files.example/x",
            "https://user:secret@files.example/",
            "https://user@files.example/",
            "https://@files.example/",
            "https://files.example/a b",
            "https://files.example/\n",
            "\thttps://files.example/",
            "java\nscript:x",
            "https://bücher.example/",
            "https://files.example/\u{202e}",
            "https://files.example\\@evil.example/",
            "https://files.example/%",
            "https://files.example/%zz",
            "https://files.example:99999/",
            "https://1.2.3.999/",
            "https://a$b.example/",
            "https://files%2eexample/",
        ] {
            assert!(url(bad).is_err(), "{bad:?}");
        }
        let long = |n: usize| format!("https://files.example/{}", "x".repeat(n - 22));
        assert_eq!(url(&long(limits::MEDIA_URL_BYTES)), Ok(()));
        assert!(url(&long(limits::MEDIA_URL_BYTES + 1)).is_err());
    }

    #[test]
    fn media_types() {
        for good in ["image/png", "application/vnd.oasis.opendocument.text", "image/svg+xml", "audio/x-m4a", "X/Y"] {
            assert_eq!(media_type(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            " ",
            "image",
            "image/",
            "/png",
            "image/png/x",
            "image/png;q=1",
            "image/ png",
            "image/p\0",
            "bild/öl",
            "*/*",
            "-a/b",
        ] {
            assert!(media_type(bad).is_err(), "{bad:?}");
        }
        assert!(media_type(&format!("a/{}", "x".repeat(limits::MEDIA_MIME_CHARS))).is_err());
    }

    #[test]
    fn file_names() {
        for good in [
            "teich.jpg",
            "Grüße aus Köln.pdf",
            "Zoe\u{308}.txt",
            ".profile",
            "a..b",
            "12:30.txt",
            "شعر.txt",
            "❤\u{fe0f}.png",
        ] {
            assert_eq!(file_name(good), Ok(()), "{good:?}");
        }
        for bad in [
            "",
            " ",
            ".",
            "..",
            "...",
            ". .",
            "../x",
            "..\\x",
            "a/b",
            "a\\b",
            "/etc/passwd",
            "C:evil.txt",
            "a\0.txt",
            "a\nb",
            "exe.\u{202e}gpj",
            "\u{200b}",
            "a\u{1b}]0;x\u{7}",
        ] {
            assert!(file_name(bad).is_err(), "{bad:?}");
        }
        assert_eq!(file_name(&"ü".repeat(limits::MEDIA_NAME_CHARS)), Ok(()));
        assert!(file_name(&"ü".repeat(limits::MEDIA_NAME_CHARS + 1)).is_err());
    }
}
