//! Plans: what a tenant can buy, as the catalogue's file writes it and as its versions are kept.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::gcra::Rate;

/// A version of a plan: tenants keep the one that they bought until they are moved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PlanRef {
    /// Its name in the catalogue.
    pub plan: String,
    /// From 1.
    pub version: i64,
}

/// What a plan says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The name that people see; the plan's own name when empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A plan whose features this one has as well. Kept versions have them spelt out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub includes: Option<String>,
    /// ISO 4217; empty when it has no price.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub currency: String,
    /// What a cycle costs.
    #[serde(default, skip_serializing_if = "Prices::is_none")]
    pub price: Prices,
    /// The trial of a new tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// Days for which an unpaid tenant goes on working.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub grace_days: u16,
    /// Members that may be active at once; none is unlimited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seats: Option<i64>,
    /// Features that it includes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Days for which usage events are kept, one by one; 400 when absent. Sums are kept for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage_retention_days: Option<u16>,
    /// Limits by metric; what is absent is unlimited.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Limit>,
    /// Whether it is on the public price list.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub public: bool,
    /// Whether a tenant's owner may choose it; otherwise services and operators do.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub self_service: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_zero(number: &u16) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_true(flag: &bool) -> bool {
    *flag
}

const fn yes() -> bool {
    true
}

/// What a cycle costs, in minor units of the plan's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prices {
    /// A month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub month: Option<i64>,
    /// A year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub year: Option<i64>,
}

impl Prices {
    const fn is_none(&self) -> bool {
        self.month.is_none() && self.year.is_none()
    }
}

/// How long a paid period is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cycle {
    /// A month.
    Month,
    /// A year.
    Year,
}

impl Cycle {
    /// How many calendar months it has.
    #[must_use]
    pub const fn months(self) -> u32 {
        match self {
            Self::Month => 1,
            Self::Year => 12,
        }
    }
}

/// The trial of a new tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// How long.
    pub days: u16,
    /// What comes after.
    pub then: AfterTrial,
}

/// What a trial ends into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterTrial {
    /// The tenant is suspended until a plan is chosen or paid.
    Suspend,
    /// The tenant goes on, on this plan.
    #[serde(untagged)]
    Downgrade {
        /// To which.
        downgrade: String,
    },
}

// By hand, because what serde makes of an untagged enum says neither where nor what is wrong.
impl<'de> Deserialize<'de> for AfterTrial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Downgrade {
            downgrade: String,
        }
        impl<'de> Visitor<'de> for Text {
            type Value = AfterTrial;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"suspend\" or { downgrade = \"<plan>\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<AfterTrial, E> {
                match text {
                    "suspend" => Ok(AfterTrial::Suspend),
                    other => Err(E::invalid_value(Unexpected::Str(other), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AfterTrial, A::Error> {
                let Downgrade { downgrade } = Downgrade::deserialize(MapAccessDeserializer::new(map))?;
                Ok(AfterTrial::Downgrade { downgrade })
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// A limit: a whole number, or a table when there is more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// How much, in the metric's base unit; of a rate, so many per minute.
    pub limit: i64,
    /// Percent by which it may be exceeded; 0 is a hard limit.
    pub soft_percent: u16,
    /// Of a rate: how many at once; as many as per minute when it is 0.
    pub burst: i64,
    /// What is charged beyond the limit.
    pub overage: Option<Overage>,
    /// How much each member may use of it; none is as much as the tenant.
    pub per_member: Option<i64>,
    /// How much each API key may use of it; none is as much as the tenant.
    pub per_key: Option<i64>,
}

impl Limit {
    /// Up to where amounts are admitted.
    #[must_use]
    pub fn admits(&self) -> i64 {
        self.with_grace(self.limit)
    }

    /// Of a rate: how many at once, as people know it, without grace.
    #[must_use]
    pub const fn at_once(&self) -> i64 {
        if self.burst == 0 { self.limit } else { self.burst }
    }

    /// The rate up to which amounts are admitted: grace is on both of its numbers.
    #[must_use]
    pub fn rate(&self) -> Rate {
        Rate { per_minute: self.admits(), burst: self.with_grace(self.at_once()) }
    }

    /// A limit below this one, with the same grace; of a rate with the same burst, but no more than the limit itself.
    #[must_use]
    pub fn below(&self, own: Option<i64>) -> Option<Self> {
        own.map(|limit| Self { limit, burst: self.burst.min(limit), ..*self })
    }

    fn with_grace(&self, amount: i64) -> i64 {
        let grace = i128::from(amount) * i128::from(self.soft_percent) / 100;
        i64::try_from(i128::from(amount) + grace).unwrap_or(i64::MAX)
    }
}

/// What is charged beyond a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overage {
    /// In minor units of the plan's currency.
    pub amount: i64,
    /// For every so many units.
    pub per: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitTable {
    limit: i64,
    #[serde(default, skip_serializing_if = "is_zero")]
    soft_percent: u16,
    #[serde(default, skip_serializing_if = "is_none")]
    burst: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    overage: Option<Overage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    per_member: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    per_key: Option<i64>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_none(number: &i64) -> bool {
    *number == 0
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { limit, soft_percent, burst, overage, per_member, per_key } = *self;
        if *self == (Self { limit, ..Self::default() }) {
            return serializer.serialize_i64(limit);
        }
        LimitTable { limit, soft_percent, burst, overage, per_member, per_key }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, or a table such as { limit = 100, soft_percent = 20 }")
            }

            fn visit_i64<E>(self, limit: i64) -> Result<Limit, E> {
                Ok(Limit { limit, ..Limit::default() })
            }

            fn visit_u64<E: de::Error>(self, limit: u64) -> Result<Limit, E> {
                let too_large = |_| E::invalid_value(Unexpected::Unsigned(limit), &"at most 2^53");
                i64::try_from(limit).map_err(too_large).and_then(|limit| self.visit_i64(limit))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limit, A::Error> {
                let table = LimitTable::deserialize(MapAccessDeserializer::new(map))?;
                let LimitTable { limit, soft_percent, burst, overage, per_member, per_key } = table;
                Ok(Limit { limit, soft_percent, burst, overage, per_member, per_key })
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl Plan {
    /// What a cycle costs; nothing when the plan has no prices, and none when it has no such cycle.
    #[must_use]
    pub const fn price_of(&self, cycle: Cycle) -> Option<i64> {
        match cycle {
            Cycle::Month => self.price.month,
            Cycle::Year => self.price.year,
        }
    }

    /// The shortest cycle that it has a price for; none when it costs nothing.
    #[must_use]
    pub const fn shortest_cycle(&self) -> Option<Cycle> {
        match self.price {
            Prices { month: Some(_), .. } => Some(Cycle::Month),
            Prices { year: Some(_), .. } => Some(Cycle::Year),
            Prices { month: None, year: None } => None,
        }
    }

    /// For how many days usage events are kept.
    #[must_use]
    pub fn retention_days(&self) -> u16 {
        self.usage_retention_days.unwrap_or(400)
    }

    /// What it costs at the least, for sorting price lists; plans without a price first.
    #[must_use]
    pub fn least_price(&self) -> i64 {
        let monthly = self.price.year.map(|year| year / 12);
        self.price.month.or(monthly).unwrap_or(0)
    }
}
