//! Whose pages they are: the name, the colour and the logo that people see when they are asked to connect.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{Error, FieldError, Result};
use crate::model::{Caller, Scope};
use crate::open::Broker;

const BRANDING: &str = "branding";
/// Longest name, characters.
const NAME: usize = 60;
/// Largest logo, bytes.
const LOGO: usize = 64 * 1024;

/// What the operator's pages look like. Nothing in it: Keyholder's own look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branding {
    /// The operator's name; empty: none is shown.
    pub name: String,
    /// Of buttons and links.
    pub color: Option<Color>,
    /// Shown beside the name.
    pub logo: Option<Logo>,
}

/// A colour: red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Color(pub [u8; 3]);

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(f, "#{red:02x}{green:02x}{blue:02x}")
    }
}

impl FromStr for Color {
    type Err = FieldError;

    fn from_str(text: &str) -> std::result::Result<Self, FieldError> {
        let wrong = || {
            FieldError::new("color", "it isn't a colour", "write it as # and six hexadecimal digits, such as #1b57c4")
        };
        let digits = text.trim().strip_prefix('#').unwrap_or_default();
        if digits.len() != 6 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let part = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong());
        Ok(Self([part(0)?, part(2)?, part(4)?]))
    }
}

/// An image whose kind was told by its first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logo {
    mime: &'static str,
    bytes: Vec<u8>,
}

impl Logo {
    /// PNG, JPEG or WebP. Never SVG: it can hold scripts, and loads what it likes.
    ///
    /// # Errors
    /// What is none of these, or is larger than 64 kB.
    pub fn new(bytes: Vec<u8>) -> std::result::Result<Self, FieldError> {
        let wrong = |reason: &str, remedy: &str| FieldError::new("logo", reason, remedy);
        if bytes.len() > LOGO {
            return Err(wrong("it is larger than 64 kB", "save it smaller: 160 pixels of height are enough"));
        }
        let mime = if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            "image/png"
        } else if bytes.starts_with(b"\xff\xd8\xff") {
            "image/jpeg"
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            "image/webp"
        } else {
            return Err(wrong(
                "it is no PNG, JPEG or WebP image",
                "save it as one of these; SVG isn't taken, because it can hold scripts",
            ));
        };
        Ok(Self { mime, bytes })
    }

    /// `image/png`, `image/jpeg` or `image/webp`.
    pub fn mime(&self) -> &'static str {
        self.mime
    }

    /// The file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// As it is stored.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    name: String,
    color: Option<String>,
    logo: Option<String>,
}

impl Broker {
    /// What the pages look like. What can't be read any more is left out: they must be shown all the same.
    pub async fn branding(&self) -> Result<Branding> {
        let written = self.store.read(|tx| tx.meta(BRANDING)).await?;
        let written: Written = written.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let logo = written.logo.and_then(|text| STANDARD.decode(text).ok()).and_then(|bytes| Logo::new(bytes).ok());
        Ok(Branding { name: written.name, color: written.color.and_then(|text| text.parse().ok()), logo })
    }

    /// Changes it.
    pub async fn set_branding(&self, caller: &Caller, new: Branding) -> Result<()> {
        self.require(caller, Scope::Admin)?;
        let name = new.name.trim();
        if name.chars().count() > NAME || name.chars().any(char::is_control) {
            let remedy = "use at most 60 characters without line breaks";
            return Err(Error::Invalid(vec![FieldError::new("brand_name", "it can't be shown as a name", remedy)]));
        }
        let written = Written {
            name: name.to_owned(),
            color: new.color.map(|color| color.to_string()),
            logo: new.logo.map(|logo| STANDARD.encode(logo.bytes)),
        };
        let text = serde_json::to_string(&written).unwrap_or_default();
        self.store.write(move |tx| tx.put_meta(BRANDING, &text)).await?;
        self.record(caller, "branding.edit", BRANDING, "ok", None)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that can't go on says so by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_colour_is_six_hexadecimal_digits() {
        for text in ["#1b57c4", " #FFFFFF "] {
            let color: Color = text.parse().unwrap();
            assert_eq!(color.to_string(), text.trim().to_lowercase());
        }
        for text in ["", "1b57c4", "#fff", "#1b57cg", "#é57c4", "red;}body{}", "#+1+2+3", "#1b57c4ff"] {
            assert_eq!(text.parse::<Color>().unwrap_err().field, "color", "{text}");
        }
    }

    #[test]
    fn a_logo_is_told_by_its_first_bytes() {
        let mime = |bytes: &[u8]| Logo::new(bytes.to_vec()).map(|logo| logo.mime());
        assert_eq!(mime(b"\x89PNG\r\n\x1a\nrest"), Ok("image/png"));
        assert_eq!(mime(b"\xff\xd8\xff\xe0"), Ok("image/jpeg"));
        assert_eq!(mime(b"RIFF\x01\x02\x03\x04WEBPVP8 "), Ok("image/webp"));
        for bytes in
            [&b""[..], b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"RIFF\x01\x02\x03\x04WAVE", b"GIF89a", b"\x89PNG"]
        {
            assert!(mime(bytes).unwrap_err().reason.contains("no PNG"), "{bytes:?}");
        }
        let large = [b"\x89PNG\r\n\x1a\n".to_vec(), vec![0; 65 * 1024]].concat();
        assert!(Logo::new(large).unwrap_err().reason.contains("64 kB"));
    }
}
