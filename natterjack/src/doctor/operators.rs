//! Who can reach the address for operators.

use crate::settings::Settings;

pub fn address(settings: &Settings) -> Result<String, String> {
    match settings.admin {
        None => Ok("none (admin.listen is empty): no metrics, and failures are only in the log".into()),
        Some(at) if at.ip().is_unspecified() => Err(format!(
            "admin.listen is {at}: everyone who can reach the port for clients can read metrics and details too, \
             without a token; listen on \
             127.0.0.1 or on an address of the operators' network"
        )),
        Some(at) if at.ip().is_loopback() && at.port() == 0 => {
            Ok(format!("{}, port 9100 or a free one, from this machine alone", at.ip()))
        }
        Some(at) if at.ip().is_loopback() => Ok(format!("{at}, from this machine alone")),
        Some(at) => Ok(format!("{at}, without a token: let only operators' machines reach it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_for_everybody_is_named_with_what_to_do() {
        let of = |listen: &str| address(&Settings::of(&[("admin.listen", listen)]).unwrap());
        for open in ["0.0.0.0:9100", "[::]:9100"] {
            let why = of(open).unwrap_err();
            assert!(why.contains(open) && why.contains("metrics") && why.contains("listen on 127.0.0.1"), "{why}");
        }
        assert!(of("127.0.0.1:9100").unwrap().contains("this machine alone"));
        assert!(of("10.0.0.1:9100").unwrap().contains("without a token"));
        assert!(of("").unwrap().contains("admin.listen is empty"));
    }
}
