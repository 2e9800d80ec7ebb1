//! Sets, which may change and which may not.

use std::{
    collections::HashSet,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use crate::payload::token;

/// A `set`. A `HashSet` goes as a list.
///
/// ```
/// use async_signals::types::Set;
///
/// let tags: Set<&str> = ["new", "gift"].into();
/// assert!(tags.contains("gift"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<T: Eq + Hash>(HashSet<T>);

/// A `frozenset`: what may itself be a member of a set.
///
/// ```
/// use async_signals::types::{FrozenSet, Set};
///
/// let pairs: Set<FrozenSet<u8>> = [FrozenSet::from([1, 2]), FrozenSet::from([2, 1])].into();
/// assert_eq!(pairs.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrozenSet<T: Eq + Hash>(HashSet<T>);

impl<T: Eq + Hash> DerefMut for Set<T> {
    fn deref_mut(&mut self) -> &mut HashSet<T> {
        &mut self.0
    }
}

/// Its members have no order: their hashes are added up.
impl<T: Eq + Hash> Hash for FrozenSet<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let sum = self.0.iter().fold(0_u64, |sum, member| {
            let mut hasher = DefaultHasher::new();
            member.hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        });
        state.write_u64(sum);
    }
}

macro_rules! set {
    ($set:ident, $token:expr) => {
        impl<T: Eq + Hash> Default for $set<T> {
            fn default() -> Self {
                Self(HashSet::new())
            }
        }

        impl<T: Eq + Hash> Deref for $set<T> {
            type Target = HashSet<T>;

            fn deref(&self) -> &HashSet<T> {
                &self.0
            }
        }

        impl<T: Eq + Hash> From<HashSet<T>> for $set<T> {
            fn from(members: HashSet<T>) -> Self {
                Self(members)
            }
        }

        impl<T: Eq + Hash, const N: usize> From<[T; N]> for $set<T> {
            fn from(members: [T; N]) -> Self {
                Self(members.into())
            }
        }

        impl<T: Eq + Hash> From<$set<T>> for HashSet<T> {
            fn from(set: $set<T>) -> Self {
                set.0
            }
        }

        impl<T: Eq + Hash> FromIterator<T> for $set<T> {
            fn from_iter<I: IntoIterator<Item = T>>(members: I) -> Self {
                Self(members.into_iter().collect())
            }
        }

        impl<T: Eq + Hash> IntoIterator for $set<T> {
            type Item = T;
            type IntoIter = std::collections::hash_set::IntoIter<T>;

            fn into_iter(self) -> Self::IntoIter {
                self.0.into_iter()
            }
        }

        impl<'a, T: Eq + Hash> IntoIterator for &'a $set<T> {
            type Item = &'a T;
            type IntoIter = std::collections::hash_set::Iter<'a, T>;

            fn into_iter(self) -> Self::IntoIter {
                self.0.iter()
            }
        }

        impl<T: Eq + Hash + Serialize> Serialize for $set<T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_newtype_struct($token, &self.0)
            }
        }

        impl<'de, T: Eq + Hash + Deserialize<'de>> Deserialize<'de> for $set<T> {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_newtype_struct($token, Members(PhantomData)).map(Self)
            }
        }
    };
}
set!(Set, token::SET);
set!(FrozenSet, token::FROZENSET);

struct Members<T>(PhantomData<T>);

impl<'de, T: Eq + Hash + Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = HashSet<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a set")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<HashSet<T>, D::Error> {
        HashSet::deserialize(deserializer)
    }
}
