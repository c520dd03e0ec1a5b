//! Checks what a role's connection to NATS needs: a login at each server, and each permission.

use natterjack_nats::{NatsConfig, NatsConnectError, NatsRole, check_servers, probe};

/// The result for each server. An error: none of them can be reached.
pub async fn servers(cfg: &NatsConfig) -> Result<Vec<(String, Result<String, String>)>, String> {
    let found = match check_servers(cfg, "doctor").await {
        Ok(found) => found,
        Err(e) => return Ok(vec![("NATS".into(), Err(e.to_string()))]),
    };
    let away = |found: &Result<(), NatsConnectError>| matches!(found, Err(NatsConnectError::Unreachable { .. }));
    if found.iter().all(|(_, found)| away(found)) {
        let said = found.into_iter().filter_map(|(_, found)| Some(found.err()?.to_string())).collect::<Vec<_>>();
        return Err(said.join("; "));
    }
    let shown = |found: Result<(), NatsConnectError>| {
        found.map(|()| "lets this login in".to_owned()).map_err(|e| e.to_string())
    };
    Ok(found.into_iter().map(|(server, found)| (format!("NATS {server}"), shown(found))).collect())
}

pub async fn permissions(cfg: &NatsConfig) -> Result<String, String> {
    let role = cfg.role.unwrap_or(NatsRole::Doctor);
    let missing = probe::missing(cfg, role).await.map_err(|e| e.to_string())?;
    if missing.is_empty() {
        return Ok(format!("this user may do what {} does", role.name()));
    }
    Err(format!(
        "this user may not do what {0} does: {1}; give it those of {2} that `natterjack provision \
         --print-permissions` prints \
         (for the configuration of another role: --role)",
        role.name(),
        missing.join(", "),
        role.name().to_uppercase(),
    ))
}
