//! Serde's reading without its leniency: a struct is a map, never a list of its fields; a string is no bytes and bytes
//! are no string; a name of a list of names is a string, never a number or a map; there is no `null`. Wraps a
//! deserializer, so it holds for every type.

use std::fmt;

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, IntoDeserializer, MapAccess, SeqAccess, Unexpected, Visitor},
};

pub struct Strict<D>(pub D);

/// What a type has asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// A number, a bool, or what an `Option` or a newtype holds.
    Plain,
    Text,
    Bytes,
    List,
    Map,
}

struct Only<V> {
    visitor: V,
    asked: Asked,
}

macro_rules! ask {
    ($($method:ident $asked:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method(Only { visitor, asked: Asked::$asked })
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    ask! {
        deserialize_bool Plain; deserialize_char Text;
        deserialize_u8 Plain; deserialize_u16 Plain; deserialize_u32 Plain;
        deserialize_u64 Plain; deserialize_u128 Plain;
        deserialize_i8 Plain; deserialize_i16 Plain; deserialize_i32 Plain;
        deserialize_i64 Plain; deserialize_i128 Plain;
        deserialize_f32 Plain; deserialize_f64 Plain; deserialize_option Plain;
        deserialize_str Text; deserialize_string Text; deserialize_identifier Text;
        deserialize_bytes Bytes; deserialize_byte_buf Bytes;
        deserialize_seq List; deserialize_map Map;
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }

    /// Types say what they are; this is for values that nobody knows.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_ignored_any(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_newtype_struct(name, Only { visitor, asked: Asked::Plain })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple(len, Only { visitor, asked: Asked::List })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_tuple_struct(name, len, Only { visitor, asked: Asked::List })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, Only { visitor, asked: Asked::Map })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_str(Name(visitor))
    }
}

impl<V> Only<V> {
    fn check<'de, E: Error>(&self, found: Asked, what: Unexpected<'_>) -> Result<(), E>
    where
        V: Visitor<'de>,
    {
        if self.asked == found { Ok(()) } else { Err(E::invalid_type(what, &Expected(&self.visitor))) }
    }
}

struct Expected<'a, V>(&'a V);

impl<'de, V: Visitor<'de>> serde::de::Expected for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

macro_rules! visit {
    ($($method:ident $type:ty, $asked:ident, $unexpected:expr;)*) => {$(
        fn $method<E: Error>(self, v: $type) -> Result<V::Value, E> {
            self.check(Asked::$asked, $unexpected(&v))?;
            self.visitor.$method(v)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Only<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    visit! {
        visit_bool bool, Plain, |v: &bool| Unexpected::Bool(*v);
        visit_i64 i64, Plain, |v: &i64| Unexpected::Signed(*v);
        visit_u64 u64, Plain, |v: &u64| Unexpected::Unsigned(*v);
        visit_f64 f64, Plain, |v: &f64| Unexpected::Float(*v);
        visit_str &str, Text, |_: &&str| Unexpected::Other("string");
        visit_borrowed_str &'de str, Text, |_: &&str| Unexpected::Other("string");
        visit_string String, Text, |_: &String| Unexpected::Other("string");
        visit_bytes &[u8], Bytes, |_: &&[u8]| Unexpected::Other("bytes");
        visit_borrowed_bytes &'de [u8], Bytes, |_: &&[u8]| Unexpected::Other("bytes");
        visit_byte_buf Vec<u8>, Bytes, |_: &Vec<u8>| Unexpected::Other("bytes");
    }

    fn visit_f32<E: Error>(self, v: f32) -> Result<V::Value, E> {
        self.visit_f64(v.into())
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        Err(E::custom("null is no value: leave the field out"))
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_some(Strict(d))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<V::Value, D::Error> {
        self.visitor.visit_newtype_struct(Strict(d))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, a: A) -> Result<V::Value, A::Error> {
        self.check(Asked::List, Unexpected::Seq)?;
        self.visitor.visit_seq(Strict(a))
    }

    fn visit_map<A: MapAccess<'de>>(self, a: A) -> Result<V::Value, A::Error> {
        self.check(Asked::Map, Unexpected::Map)?;
        self.visitor.visit_map(Strict(a))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(Strict(seed))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(Strict(d))
    }
}

/// An enum's variant, by its name.
struct Name<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for Name<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name as a string")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        self.0.visit_enum(IntoDeserializer::<E>::into_deserializer(name))
    }
}
