//! Deserialization of records with unknown fields, without the copy that `#[serde(flatten)]`
//! makes of every field, and with paths in errors, which that copy loses.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::record::{Message, Prompt};

/// Implements `Deserialize` for a struct with an `extra` field that takes what is unknown.
/// `name: required`, `name: optional` (`Option`, absent or null: `None`), `name: default(value)`
/// (absent: the value).
macro_rules! record_fields {
    (@absent $name:ident required) => {
        return Err(serde::de::Error::missing_field(stringify!($name)))
    };
    (@absent $name:ident optional) => { None };
    (@absent $name:ident default($value:expr)) => { $value };
    ($record:ident { $($name:ident: $kind:ident $(($value:expr))?),+ $(,)? }) => {
        impl<'de> serde::Deserialize<'de> for $record {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[allow(non_camel_case_types)]
                enum Key { $($name,)+ Other(String) }

                struct Keys;

                impl serde::de::Visitor<'_> for Keys {
                    type Value = Key;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a field name")
                    }

                    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
                        Ok(match name {
                            $(stringify!($name) => Key::$name,)+
                            other => Key::Other(other.to_string()),
                        })
                    }
                }

                impl<'de> serde::Deserialize<'de> for Key {
                    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                        d.deserialize_identifier(Keys)
                    }
                }

                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $record;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$record, A::Error> {
                        $(let mut $name = None;)+
                        let mut extra = Extra::new();
                        while let Some(key) = map.next_key::<Key>()? {
                            match key {
                                $(Key::$name => {
                                    if $name.replace(map.next_value()?).is_some() {
                                        let name = stringify!($name);
                                        return Err(serde::de::Error::duplicate_field(name));
                                    }
                                })+
                                Key::Other(name) => {
                                    extra.insert(name, map.next_value()?);
                                }
                            }
                        }
                        Ok($record {
                            $($name: match $name {
                                Some(value) => value,
                                None => $crate::fields::record_fields!(
                                    @absent $name $kind $(($value))?
                                ),
                            },)+
                            extra,
                        })
                    }
                }

                deserializer.deserialize_map(Fields)
            }
        }
    };
}

pub(crate) use record_fields;

impl<'de> Deserialize<'de> for Message {
    /// A turn is its role and its content. Anything more (tool calls, names) would change what the
    /// model sees, so it is refused rather than dropped; null is nothing.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Turn;

        impl<'de> Visitor<'de> for Turn {
            type Value = Message;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a turn {\"role\", \"content\"}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Message, A::Error> {
                let (mut role, mut content) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "role" => role = Some(map.next_value()?),
                        "content" => content = Some(map.next_value()?),
                        _ if map.next_value::<Value>()?.is_null() => {}
                        _ => {
                            return Err(A::Error::custom(format!(
                                "a turn has a role and a content only: remove `{key}`"
                            )));
                        }
                    }
                }
                Ok(Message {
                    role: role.ok_or_else(|| A::Error::missing_field("role"))?,
                    content: content.ok_or_else(|| A::Error::missing_field("content"))?,
                })
            }
        }

        deserializer.deserialize_map(Turn)
    }
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrTurns;

        impl<'de> Visitor<'de> for TextOrTurns {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text or a list of turns {\"role\", \"content\"}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Prompt, E> {
                Ok(Prompt::Text(text.to_string()))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Prompt, E> {
                Ok(Prompt::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut turns: A) -> Result<Prompt, A::Error> {
                let mut messages = Vec::new();
                while let Some(message) = turns.next_element::<Message>()? {
                    messages.push(message);
                }
                Ok(Prompt::Chat(messages))
            }

            fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Prompt, A::Error> {
                Err(A::Error::custom("an object; write a list of turns, even for one"))
            }
        }

        deserializer.deserialize_any(TextOrTurns)
    }
}
