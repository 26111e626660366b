//! The look of the pages: the operator's name, logo and colour, kept readable.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use keyholder_broker::Color;

use super::super::problem::Problem;
use super::super::{App, assets};
use super::words::{Words, fill, words_for};

/// What every page begins with.
pub(super) struct Look {
    pub(super) style: String,
    /// The style sheet with the operator's colour.
    pub(super) colors: Option<String>,
    pub(super) name: String,
    /// As a data URL.
    pub(super) logo: Option<String>,
    pub(super) words: &'static Words,
    /// The page's content security policy.
    pub(super) policy: HeaderValue,
}

impl Look {
    /// A text with one value put in.
    pub(super) fn say(&self, text: &str, name: &str, value: impl AsRef<str>) -> String {
        fill(text, &[(name, value.as_ref())])
    }
}

/// Of this installation, in the reader's language. The pages are shown whatever becomes of the branding.
pub(super) async fn look(app: &App, headers: &HeaderMap) -> Look {
    let branding = app.broker.branding().await.unwrap_or_else(|error| {
        Problem::of(&error).log();
        keyholder_broker::Branding::default()
    });
    Look {
        style: assets::style_path(),
        colors: branding.color.map(path),
        name: branding.name,
        logo: branding.logo.map(|logo| format!("data:{};base64,{}", logo.mime(), STANDARD.encode(logo.bytes()))),
        words: words_for(headers),
        policy: policy(app),
    }
}

/// No script at all. Browsers hold a form's redirects to `form-action` too, and these lead to the provider, wherever it sends on to; so schemes, not hosts.
fn policy(app: &App) -> HeaderValue {
    HeaderValue::from_static(if app.broker.public_url().scheme() == "https" {
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self' https:"
    } else {
        "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; frame-ancestors 'none'; form-action 'self' https: http:"
    })
}

/// The style sheet is made of its address alone, so it can be cached for ever.
fn path(color: Color) -> String {
    format!("/assets/brand-{}.css", color.to_string().trim_start_matches('#'))
}

/// The style sheet of this name.
pub(in crate::http) fn css(file: &str) -> Option<String> {
    let digits = file.strip_prefix("brand-")?.strip_suffix(".css")?;
    let color: Color = format!("#{digits}").parse().ok()?;
    let (light, dark) = (readable(color, LIGHT, BLACK), readable(color, DARK, WHITE));
    let (on_light, on_dark) = (text_on(light), text_on(dark));
    Some(format!(
        ":root {{ --accent: light-dark({light}, {dark}); --on-accent: light-dark({on_light}, {on_dark}); }}\n"
    ))
}

const BLACK: Color = Color([0, 0, 0]);
const WHITE: Color = Color([255, 255, 255]);
/// What it is read on: the darkest light ground, and the lightest dark one.
const LIGHT: Color = Color([0xf4, 0xf5, 0xf7]);
const DARK: Color = Color([0x1e, 0x21, 0x27]);
/// WCAG 2.2, 1.4.3.
const ENOUGH: f64 = 4.5;

/// `color`, mixed with as much of `end` as it takes to be read on `ground`.
fn readable(color: Color, ground: Color, end: Color) -> Color {
    let mixes = (0..=40_u32).map(|step| mixed(color, end, step));
    mixes.into_iter().find(|mix| contrast(*mix, ground) >= ENOUGH).unwrap_or(end)
}

/// 0: `color` alone; 40: `end` alone.
fn mixed(color: Color, end: Color, step: u32) -> Color {
    let part = |at: usize| (u32::from(color.0[at]) * (40 - step) + u32::from(end.0[at]) * step) / 40;
    Color([0, 1, 2].map(|at| u8::try_from(part(at)).unwrap_or(u8::MAX)))
}

fn text_on(color: Color) -> Color {
    if contrast(color, WHITE) >= contrast(color, BLACK) { WHITE } else { BLACK }
}

/// WCAG's contrast ratio.
fn contrast(a: Color, b: Color) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn luminance(color: Color) -> f64 {
    let [red, green, blue] = color.0.map(|part| {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_colour_can_be_read() {
        for red in (0..=255).step_by(51) {
            for green in (0..=255).step_by(51) {
                for blue in (0..=255).step_by(51) {
                    let color = Color([red, green, blue]);
                    for (ground, end) in [(LIGHT, BLACK), (DARK, WHITE)] {
                        let accent = readable(color, ground, end);
                        assert!(contrast(accent, ground) >= ENOUGH, "{color} on {ground}");
                        assert!(contrast(accent, text_on(accent)) >= ENOUGH, "text on {color}");
                    }
                }
            }
        }
        // What can be read stays as it is.
        assert_eq!(readable(Color([0x1b, 0x57, 0xc4]), LIGHT, BLACK), Color([0x1b, 0x57, 0xc4]));
        assert!((contrast(WHITE, BLACK) - 21.0).abs() < 0.01);
    }

    #[test]
    fn only_colours_have_a_style_sheet() {
        assert_eq!(path(Color([255, 238, 0])), "/assets/brand-ffee00.css");
        assert!(css("brand-ffee00.css").is_some_and(|text| text.contains("--accent: light-dark(#")));
        for file in
            ["brand-.css", "brand-fff.css", "brand-ffee00", "brand-ffee0;.css", "brand-\u{e9}e00.css", "other.css"]
        {
            assert_eq!(css(file), None, "{file}");
        }
    }
}
