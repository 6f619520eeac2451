//! How large a log file may become, and how many earlier ones are kept: the end of a value of `--log`, such as
//! `,max=100M,keep=3`.

/// The default size of a log in all, in bytes.
pub const IN_ALL: u64 = 256_000_000;

/// The default number of earlier files that are kept.
pub const KEEP: u32 = 3;

/// The smallest size of a file, in bytes. A line is much shorter.
const LEAST: u64 = 64_000;

/// The largest number of earlier files. Each is renamed when a new file is begun.
const MOST: u32 = 99;

/// How large a log file may become, and how many earlier ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The maximum size of a file, in bytes; `None` for no limit.
    pub max: Option<u64>,
    /// The number of earlier files that are kept.
    pub keep: u32,
    /// Whether the user has given one of them.
    pub is_given: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Self::new(None, None)
    }
}

impl Rotation {
    /// Without a size, all files together have the default one.
    fn new(max: Option<Option<u64>>, keep: Option<u32>) -> Self {
        let kept = keep.unwrap_or(KEEP);
        Self {
            max: max.unwrap_or(Some(IN_ALL / u64::from(kept + 1))),
            keep: kept,
            is_given: max.is_some() || keep.is_some(),
        }
    }

    /// Splits the options off the end of a text. Other commas are part of the rest.
    ///
    /// # Errors
    /// If an option is invalid, is given twice, or looks like one and does not exist.
    pub fn split_from(text: &str) -> Result<(&str, Self), String> {
        let (mut max, mut keep) = (None, None);
        let mut rest = text;
        while let Some((before, option)) = rest.rsplit_once(',')
            && let Some((name, value)) = option.split_once('=')
            && !option.contains('/')
        {
            match name {
                "max" if max.is_none() => max = Some(size(value)?),
                "keep" if keep.is_none() => keep = Some(count(value)?),
                "max" | "keep" => return Err(format!("{name} is given twice")),
                // A path may have such an end too, but hardly with a size in it.
                _ if is_size(value) => {
                    return Err(format!(
                        "a file has no option {name}; its options are max=SIZE and keep=NUMBER"
                    ));
                }
                _ => break,
            }
            rest = before;
        }
        Ok((rest, Self::new(max, keep)))
    }
}

/// A size in bytes, with a unit of 1000 or a power of it; `None` for no limit.
fn size(text: &str) -> Result<Option<u64>, String> {
    if text == "none" {
        return Ok(None);
    }
    let bytes = bytes(text).ok_or_else(|| {
        format!("max={text} is no size: give bytes, or a number with k, M or G; or none")
    })?;
    if bytes < LEAST {
        return Err(format!(
            "max={text} is too small: the least is {}k",
            LEAST / 1000
        ));
    }
    Ok(Some(bytes))
}

fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1_000),
        None => match (text.strip_suffix('M'), text.strip_suffix('G')) {
            (Some(number), _) => (number, 1_000_000),
            (_, Some(number)) => (number, 1_000_000_000),
            _ => (text, 1),
        },
    };
    is_number(number)
        .then(|| number.parse::<u64>().ok()?.checked_mul(unit))
        .flatten()
}

fn is_size(text: &str) -> bool {
    bytes(text.trim_end_matches(['B', 'b'])).is_some()
}

/// Whether it has digits only. `parse` takes a sign too.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn count(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|count| is_number(text) && *count <= MOST)
        .ok_or_else(|| format!("keep={text} is no number from 0 to {MOST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_off_the_end_and_other_commas_are_of_the_path() {
        let given = |max, keep| Rotation {
            max,
            keep,
            is_given: true,
        };
        let default = Rotation::default();
        for (text, path, rotation) in [
            ("/a", "/a", default),
            ("/a,max=100M,keep=3", "/a", given(Some(100_000_000), 3)),
            ("/a,keep=0,max=64k", "/a", given(Some(64_000), 0)),
            ("/a,max=1G", "/a", given(Some(1_000_000_000), KEEP)),
            ("/a,max=70000", "/a", given(Some(70_000), KEEP)),
            ("/a,max=none", "/a", given(None, KEEP)),
            ("/a,keep=9", "/a", given(Some(IN_ALL / 10), 9)),
            ("/a,b.json", "/a,b.json", default),
            ("/a,b=c.json", "/a,b=c.json", default),
            ("/max=1,keep=x/a", "/max=1,keep=x/a", default),
            ("/a,b=c,max=1M", "/a,b=c", given(Some(1_000_000), KEEP)),
            ("/a,", "/a,", default),
        ] {
            assert_eq!(Rotation::split_from(text), Ok((path, rotation)), "{text}");
        }
    }

    #[test]
    fn the_default_is_a_size_in_all() {
        let Rotation { max, keep, .. } = Rotation::default();
        assert_eq!(max.unwrap() * u64::from(keep + 1), IN_ALL);
    }

    #[test]
    fn an_option_that_is_none_is_no_part_of_the_path() {
        for text in [
            "/a,max=",
            "/a,max=10",
            "/a,max=1T",
            "/a,max=+70000",
            "/a,max=99999999999999999999G",
            "/a,keep=",
            "/a,keep=100",
            "/a,keep=-1",
            "/a,max=1M,max=2M",
            "/a,keep=1,max=1M,keep=2",
            "/a,size=100M",
            "/a,rotate=3",
            "/a,maxsize=100MB",
        ] {
            assert!(Rotation::split_from(text).is_err(), "{text}");
        }
    }
}
