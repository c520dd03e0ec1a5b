//! What a run has shown, as text or JSON.

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::Serialize;

use super::cpu::Used;

#[derive(Debug, Clone, Default, Serialize)]
pub struct Percentiles {
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub max_us: u64,
}

impl From<&Histogram<u64>> for Percentiles {
    fn from(h: &Histogram<u64>) -> Self {
        Self {
            p50_us: h.value_at_quantile(0.5),
            p99_us: h.value_at_quantile(0.99),
            p999_us: h.value_at_quantile(0.999),
            max_us: h.max(),
        }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    pub load: String,
    pub seconds: f64,
    /// Acknowledged by the log.
    pub sent: u64,
    pub delivered: u64,
    /// Expected and not delivered when the run was over. A run with any is not a figure.
    pub missing: u64,
    pub ack: Option<Percentiles>,
    pub delivery: Option<Percentiles>,
    pub used: Vec<Used>,
    /// What the CPU figure is divided by, for instance `delivery`.
    pub per: &'static str,
    pub units: u64,
    /// Further lines of this load.
    pub notes: Vec<String>,
}

impl LoadReport {
    pub fn cpu_us_per_unit(&self) -> f64 {
        self.used.iter().map(|u| u.cpu_seconds).sum::<f64>() * 1e6 / self.units.max(1) as f64
    }
}

pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(600_000_000, 3).expect("ten minutes in microseconds, three digits")
}

pub fn print(reports: &[LoadReport], machine: &str, json: bool) -> Result<()> {
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(
                &serde_json::json!({ "machine": machine, "durability": DURABILITY, "loads": reports })
            )?
        );
        return Ok(());
    }
    println!("{machine}\nacknowledged means: {DURABILITY}");
    for r in reports {
        println!("\n{}, {:.1} s", r.load, r.seconds);
        let per_second = |n: u64| n as f64 / r.seconds;
        if r.sent > 0 {
            println!(
                "  sent {:.0}/s, delivered {:.0}/s, missing {}",
                per_second(r.sent),
                per_second(r.delivered),
                r.missing
            );
        }
        for (name, p) in [("ack", &r.ack), ("delivery", &r.delivery)] {
            if let Some(p) = p {
                println!(
                    "  {name} p50 {} µs, p99 {} µs, p99.9 {} µs, max {} µs",
                    p.p50_us, p.p99_us, p.p999_us, p.max_us
                );
            }
        }
        for u in &r.used {
            let us = u.cpu_seconds * 1e6 / r.units.max(1) as f64;
            println!("  {:<12} {us:>8.2} µs CPU per {}, {:>4} MiB resident", u.role, r.per, u.rss_bytes >> 20);
        }
        println!("  {:<12} {:>8.2} µs CPU per {}", "all", r.cpu_us_per_unit(), r.per);
        r.notes.iter().for_each(|n| println!("  {n}"));
    }
    Ok(())
}

const DURABILITY: &str = "stored by one nats-server without a replica, synced to disk every 100 ms (`up`'s default)";
