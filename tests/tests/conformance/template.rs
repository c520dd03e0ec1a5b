//! A frame as a case describes it, as the bytes of one codec: also such bytes as no encoder makes.

use base64::{Engine, prelude::BASE64_STANDARD};
use natterjack_protocol::codec::Codec;
use serde_json::{Map, Value};

use super::scope::Scope;

pub fn bytes(codec: Codec, template: &Value, scope: &mut Scope) -> Vec<u8> {
    let mut out = Writer { codec, scope, out: Vec::new() };
    out.value(template);
    out.out
}

struct Writer<'a> {
    codec: Codec,
    scope: &'a mut Scope,
    out: Vec<u8>,
}

/// `{"$what": …}`; `${name}` is a key like others.
pub fn special(map: &Map<String, Value>) -> Option<(&str, &Value)> {
    map.iter().find_map(|(k, v)| Some((k.strip_prefix('$').filter(|k| !k.starts_with('{'))?, v)))
}

impl Writer<'_> {
    fn value(&mut self, v: &Value) {
        match (v, self.codec) {
            (Value::String(s), _) => {
                let s = self.scope.fill(s);
                self.text(&s);
            }
            (Value::Object(map), _) => match special(map) {
                Some((what, of)) => self.special(what, of, map),
                None => self.map(map.iter().map(|(k, v)| (Value::String(k.clone()), v.clone())).collect()),
            },
            (Value::Array(list), Codec::Json) => self.separated(b"[]", list.len(), |w, i| w.value(&list[i])),
            (Value::Array(list), Codec::Msgpack) => {
                rmp::encode::write_array_len(&mut self.out, list.len() as u32).unwrap();
                list.iter().for_each(|v| self.value(v));
            }
            (plain, Codec::Json) => self.out.extend_from_slice(plain.to_string().as_bytes()),
            (Value::Null, Codec::Msgpack) => rmp::encode::write_nil(&mut self.out).unwrap(),
            (Value::Bool(b), Codec::Msgpack) => rmp::encode::write_bool(&mut self.out, *b).unwrap(),
            (Value::Number(n), Codec::Msgpack) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                (Some(n), ..) => drop(rmp::encode::write_uint(&mut self.out, n).unwrap()),
                (_, Some(n), _) => drop(rmp::encode::write_sint(&mut self.out, n).unwrap()),
                (.., n) => rmp::encode::write_f64(&mut self.out, n.unwrap()).unwrap(),
            },
        }
    }

    fn special(&mut self, what: &str, of: &Value, map: &Map<String, Value>) {
        match what {
            "get" => {
                let value = self.scope.get(of.as_str().unwrap()).clone();
                self.value(&value);
            }
            "cid" => {
                let off = map.get("ahead_ms").and_then(Value::as_i64).unwrap_or(0);
                let cid = self.scope.cid(of.as_str().unwrap(), off);
                match self.codec {
                    Codec::Json => self.text(&cid.to_string()),
                    Codec::Msgpack => self.bin(cid.as_bytes()),
                }
            }
            "bytes" => {
                let bytes = of
                    .as_u64()
                    .map_or_else(|| BASE64_STANDARD.decode(of.as_str().unwrap()).unwrap(), |n| vec![0; n as usize]);
                match self.codec {
                    Codec::Json => self.text(&BASE64_STANDARD.encode(bytes)),
                    Codec::Msgpack => self.bin(&bytes),
                }
            }
            "text" => {
                let text = of[0].as_str().unwrap().repeat(of[1].as_u64().unwrap() as usize);
                let [before, behind] =
                    ["before", "behind"].map(|k| map.get(k).and_then(Value::as_str).unwrap_or_default());
                self.text(&format!("{before}{text}{behind}"));
            }
            "cursors" => self.map(
                (0..of.as_u64().unwrap()).map(|i| (Value::String(format!("group.g{i}")), Value::from(1))).collect(),
            ),
            "map" => self.map(of.as_array().unwrap().iter().map(|pair| (pair[0].clone(), pair[1].clone())).collect()),
            "nested" => {
                let (kind, levels) = (of[0].as_str().unwrap(), of[1].as_u64().unwrap() as usize);
                let (open, close): (&[u8], &[u8]) = match (kind, self.codec) {
                    ("lists", Codec::Json) => (b"[", b"]"),
                    ("maps", Codec::Json) => (br#"{"x":"#, b"}"),
                    ("lists", Codec::Msgpack) => (b"\x91", b""),
                    ("maps", Codec::Msgpack) => (b"\x81\xa1x", b""),
                    _ => panic!("nested {kind}"),
                };
                self.out.extend_from_slice(&open.repeat(levels));
                self.value(&Value::from(1));
                self.out.extend_from_slice(&close.repeat(levels));
            }
            "raw" => match self.codec {
                Codec::Json => {
                    let text = self.scope.fill(of["json"].as_str().unwrap());
                    self.out.extend_from_slice(text.as_bytes());
                }
                Codec::Msgpack => self.out.extend(unhex(of["msgpack"].as_str().unwrap())),
            },
            "then" => of.as_array().unwrap().iter().for_each(|v| self.value(v)),
            // Filled up to so many bytes, by a field that nobody knows.
            "frame_of" => {
                let mut frame = map["frame"].clone();
                let len = |w: &mut Self, frame: &Value| bytes(w.codec, frame, w.scope).len();
                frame["padding"] = Value::String("x".repeat(100_000));
                let rest = of.as_u64().unwrap() as usize - len(self, &frame);
                frame["padding"] = Value::String("x".repeat(100_000 + rest));
                self.value(&frame);
            }
            other => panic!("a value of the sort ${other}"),
        }
    }

    fn separated(&mut self, around: &[u8; 2], n: usize, mut one: impl FnMut(&mut Self, usize)) {
        self.out.push(around[0]);
        for i in 0..n {
            if i > 0 {
                self.out.push(b',');
            }
            one(self, i);
        }
        self.out.push(around[1]);
    }

    fn map(&mut self, pairs: Vec<(Value, Value)>) {
        match self.codec {
            Codec::Json => self.separated(b"{}", pairs.len(), |w, i| {
                w.value(&pairs[i].0);
                w.out.push(b':');
                w.value(&pairs[i].1);
            }),
            Codec::Msgpack => {
                rmp::encode::write_map_len(&mut self.out, pairs.len() as u32).unwrap();
                for (k, v) in pairs {
                    self.value(&k);
                    self.value(&v);
                }
            }
        }
    }

    fn text(&mut self, text: &str) {
        match self.codec {
            Codec::Json => self.out.extend_from_slice(Value::from(text).to_string().as_bytes()),
            Codec::Msgpack => rmp::encode::write_str(&mut self.out, text).unwrap(),
        }
    }

    fn bin(&mut self, bytes: &[u8]) {
        rmp::encode::write_bin(&mut self.out, bytes).unwrap();
    }
}

pub fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}
