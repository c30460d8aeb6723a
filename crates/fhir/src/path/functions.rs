//! The table of functions: each with its name, its arguments and what it gives. FHIRPath N1, and what FHIR R4 adds
//! (fhirpath.html#functions).

use super::types::System;

/// How a function takes its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Values, computed once where the function stands.
    Values,
    /// An expression, computed for each item with `$this`.
    Each,
    /// The name of a type.
    Type,
}

/// What a function gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gives {
    /// Items of one type of FHIRPath's own.
    One(System),
    /// Items of its input.
    Input,
    /// What its argument gives.
    Argument,
    /// Items of its input and its argument.
    Both,
    /// Not known before it runs.
    Anything,
    /// Worked out by itself.
    Special,
}

macro_rules! functions {
    ($($name:literal => $variant:ident($least:literal..=$most:literal) $takes:ident $gives:expr;)*) => {
        /// A function.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Function {
            $($variant,)*
        }

        impl Function {
            /// By name, with the numbers of arguments it takes.
            pub(super) fn named(name: &str) -> Option<(Self, std::ops::RangeInclusive<usize>)> {
                match name {
                    $($name => Some((Self::$variant, $least..=$most)),)*
                    _ => None,
                }
            }

            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            pub(super) fn takes(self) -> Takes {
                match self {
                    $(Self::$variant => Takes::$takes,)*
                }
            }

            pub(super) fn gives(self) -> Gives {
                match self {
                    $(Self::$variant => $gives,)*
                }
            }
        }
    };
}

const BOOLEAN: Gives = Gives::One(System::Boolean);
const STRING: Gives = Gives::One(System::String);
const INTEGER: Gives = Gives::One(System::Integer);
const DECIMAL: Gives = Gives::One(System::Decimal);

functions! {
    "abs" => Abs(0..=0) Values Gives::Input;
    "aggregate" => Aggregate(1..=2) Each Gives::Anything;
    "all" => All(1..=1) Each BOOLEAN;
    "allFalse" => AllFalse(0..=0) Values BOOLEAN;
    "allTrue" => AllTrue(0..=0) Values BOOLEAN;
    "anyFalse" => AnyFalse(0..=0) Values BOOLEAN;
    "anyTrue" => AnyTrue(0..=0) Values BOOLEAN;
    "as" => As(1..=1) Type Gives::Special;
    "ceiling" => Ceiling(0..=0) Values INTEGER;
    "checkModifiers" => CheckModifiers(0..=64) Values Gives::Input;
    "children" => Children(0..=0) Values Gives::Anything;
    "combine" => Combine(1..=1) Values Gives::Both;
    "comparable" => Comparable(1..=1) Values BOOLEAN;
    "conformsTo" => ConformsTo(1..=1) Values BOOLEAN;
    "contains" => Contains(1..=1) Values BOOLEAN;
    "convertsToBoolean" => ConvertsToBoolean(0..=0) Values BOOLEAN;
    "convertsToDate" => ConvertsToDate(0..=0) Values BOOLEAN;
    "convertsToDateTime" => ConvertsToDateTime(0..=0) Values BOOLEAN;
    "convertsToDecimal" => ConvertsToDecimal(0..=0) Values BOOLEAN;
    "convertsToInteger" => ConvertsToInteger(0..=0) Values BOOLEAN;
    "convertsToQuantity" => ConvertsToQuantity(0..=1) Values BOOLEAN;
    "convertsToString" => ConvertsToString(0..=0) Values BOOLEAN;
    "convertsToTime" => ConvertsToTime(0..=0) Values BOOLEAN;
    "count" => Count(0..=0) Values INTEGER;
    "decode" => Decode(1..=1) Values STRING;
    "descendants" => Descendants(0..=0) Values Gives::Anything;
    "distinct" => Distinct(0..=0) Values Gives::Input;
    "empty" => Empty(0..=0) Values BOOLEAN;
    "encode" => Encode(1..=1) Values STRING;
    "endsWith" => EndsWith(1..=1) Values BOOLEAN;
    "escape" => Escape(1..=1) Values STRING;
    "exclude" => Exclude(1..=1) Values Gives::Input;
    "exists" => Exists(0..=1) Each BOOLEAN;
    "exp" => Exp(0..=0) Values DECIMAL;
    "extension" => Extension(1..=1) Values Gives::Special;
    "first" => First(0..=0) Values Gives::Input;
    "floor" => Floor(0..=0) Values INTEGER;
    "getValue" => GetValue(0..=0) Values Gives::Anything;
    "hasValue" => HasValue(0..=0) Values BOOLEAN;
    "highBoundary" => HighBoundary(0..=1) Values Gives::Anything;
    "htmlChecks" => HtmlChecks(0..=0) Values BOOLEAN;
    "htmlChecks2" => HtmlChecks2(0..=0) Values BOOLEAN;
    "iif" => If(2..=3) Each Gives::Special;
    "indexOf" => IndexOf(1..=1) Values INTEGER;
    "intersect" => Intersect(1..=1) Values Gives::Input;
    "is" => Is(1..=1) Type BOOLEAN;
    "isDistinct" => IsDistinct(0..=0) Values BOOLEAN;
    "join" => Join(0..=1) Values STRING;
    "last" => Last(0..=0) Values Gives::Input;
    "lastIndexOf" => LastIndexOf(1..=1) Values INTEGER;
    "length" => Length(0..=0) Values INTEGER;
    "ln" => Ln(0..=0) Values DECIMAL;
    "log" => Log(1..=1) Values DECIMAL;
    "lowBoundary" => LowBoundary(0..=1) Values Gives::Anything;
    "lower" => Lower(0..=0) Values STRING;
    "matches" => Matches(1..=1) Values BOOLEAN;
    "matchesFull" => MatchesFull(1..=1) Values BOOLEAN;
    "memberOf" => MemberOf(1..=1) Values BOOLEAN;
    "not" => Not(0..=0) Values BOOLEAN;
    "now" => Now(0..=0) Values Gives::One(System::DateTime);
    "ofType" => OfType(1..=1) Type Gives::Special;
    "power" => Power(1..=1) Values Gives::Anything;
    "precision" => Precision(0..=0) Values INTEGER;
    "repeat" => Repeat(1..=1) Each Gives::Anything;
    "replace" => Replace(2..=2) Values STRING;
    "replaceMatches" => ReplaceMatches(2..=2) Values STRING;
    "resolve" => Resolve(0..=0) Values Gives::Anything;
    "round" => Round(0..=1) Values DECIMAL;
    "select" => Select(1..=1) Each Gives::Argument;
    "single" => Single(0..=0) Values Gives::Input;
    "skip" => Skip(1..=1) Values Gives::Input;
    "sort" => Sort(0..=16) Each Gives::Input;
    "split" => Split(1..=1) Values STRING;
    "sqrt" => Sqrt(0..=0) Values DECIMAL;
    "startsWith" => StartsWith(1..=1) Values BOOLEAN;
    "subsetOf" => SubsetOf(1..=1) Values BOOLEAN;
    "substring" => Substring(1..=2) Values STRING;
    "subsumedBy" => SubsumedBy(1..=1) Values BOOLEAN;
    "subsumes" => Subsumes(1..=1) Values BOOLEAN;
    "supersetOf" => SupersetOf(1..=1) Values BOOLEAN;
    "tail" => Tail(0..=0) Values Gives::Input;
    "take" => Take(1..=1) Values Gives::Input;
    "timeOfDay" => TimeOfDay(0..=0) Values Gives::One(System::Time);
    "toBoolean" => ToBoolean(0..=0) Values BOOLEAN;
    "toChars" => ToChars(0..=0) Values STRING;
    "toDate" => ToDate(0..=0) Values Gives::One(System::Date);
    "toDateTime" => ToDateTime(0..=0) Values Gives::One(System::DateTime);
    "toDecimal" => ToDecimal(0..=0) Values DECIMAL;
    "toInteger" => ToInteger(0..=0) Values INTEGER;
    "toQuantity" => ToQuantity(0..=1) Values Gives::One(System::Quantity);
    "toString" => ToString(0..=0) Values STRING;
    "toTime" => ToTime(0..=0) Values Gives::One(System::Time);
    "today" => Today(0..=0) Values Gives::One(System::Date);
    "trace" => Trace(1..=2) Each Gives::Input;
    "trim" => Trim(0..=0) Values STRING;
    "truncate" => Truncate(0..=0) Values INTEGER;
    "type" => Type(0..=0) Values Gives::Special;
    "unescape" => Unescape(1..=1) Values STRING;
    "union" => Union(1..=1) Values Gives::Both;
    "upper" => Upper(0..=0) Values STRING;
    "where" => Where(1..=1) Each Gives::Input;
}

impl Function {
    /// Whether its answer hangs on the order of its input.
    pub(super) fn needs_order(self) -> bool {
        matches!(self, Self::First | Self::Last | Self::Tail | Self::Skip | Self::Take)
    }

    /// Whether it works on strings.
    pub(super) fn needs_string(self) -> bool {
        matches!(
            self,
            Self::Contains
                | Self::Decode
                | Self::Encode
                | Self::EndsWith
                | Self::Escape
                | Self::IndexOf
                | Self::LastIndexOf
                | Self::Length
                | Self::Lower
                | Self::Matches
                | Self::MatchesFull
                | Self::Replace
                | Self::ReplaceMatches
                | Self::Split
                | Self::StartsWith
                | Self::Substring
                | Self::ToChars
                | Self::Trim
                | Self::Unescape
                | Self::Upper
        )
    }
}
