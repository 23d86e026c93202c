//! Enums that are written by name on the command line.

/// Implements `Display` and `FromStr` for an enum from one table of names; an unknown name's
/// error lists them all.
macro_rules! names {
    ($type:ty, $what:literal, $($variant:path => $name:literal),+) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($variant => $name),+ })
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(name: &str) -> Result<Self, String> {
                match name {
                    $($name => Ok($variant),)+
                    _ => Err(format!(
                        concat!("unknown ", $what, " \"{}\"; one of: {}"),
                        name,
                        [$($name),+].join(", ")
                    )),
                }
            }
        }
    };
}
pub(crate) use names;
