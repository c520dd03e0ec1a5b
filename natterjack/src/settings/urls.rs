//! Checks of the two URLs in the configuration.

use std::net::IpAddr;

use natterjack_protocol::client::address::Reach;

/// Whoever answers at this URL decides who may log in as whom.
pub fn keys_url(s: String) -> Result<Option<String>, String> {
    if s.is_empty() {
        return Ok(None);
    }
    let url = reqwest::Url::parse(&s).map_err(|e| format!("is not a URL: {e}"))?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    match url.scheme() {
        "https" => Ok(Some(s)),
        "http" if here => Ok(Some(s)),
        _ => {
            Err("must begin with https://, or with http:// on this machine: whoever can change the answer can log in \
                 as any user"
                .to_owned())
        }
    }
}

/// The address that clients are told: scheme, host and port.
pub fn edge_url(s: String) -> Result<Option<String>, String> {
    if s.is_empty() {
        return Ok(None);
    }
    let url =
        reqwest::Url::parse(&s).map_err(|e| format!("{s:?} is not a URL such as wss://edge1.example.org: {e}"))?;
    let host = url.host_str().unwrap_or_default();
    let at = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    if !matches!(url.scheme(), "ws" | "wss") {
        return Err(format!("{s:?} begins neither with ws:// nor with wss://"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || s.contains('@') {
        return Err(format!(
            "must be scheme, host and port alone: {}://{at}; clients append their own paths (`/v1/ws`)",
            url.scheme()
        ));
    }
    match Reach::of_host(host) {
        None | Some(Reach::Nowhere) => Err(format!(
            "{host} is an address to listen on, not one that clients can connect to; leave it empty, and clients are \
             told the one they used"
        )),
        Some(_) => Ok(Some(format!("{}://{at}", url.scheme()))),
    }
}
