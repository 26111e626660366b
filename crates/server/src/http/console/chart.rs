//! Bars as SVG: where each stands, computed; a template writes them down. No I/O.

/// The drawing's size; it is scaled to the page.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 180.0;
const LEFT: f64 = 48.0;
const BOTTOM: f64 = 24.0;
const TOP: f64 = 10.0;

/// A drawing.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct Svg {
    pub(in crate::http) view: String,
    pub(in crate::http) rects: Vec<Rect>,
    pub(in crate::http) lines: Vec<Line>,
    pub(in crate::http) texts: Vec<Text>,
}

/// A part of a bar.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct Rect {
    pub(in crate::http) class: &'static str,
    pub(in crate::http) x: String,
    pub(in crate::http) y: String,
    pub(in crate::http) width: String,
    pub(in crate::http) height: String,
}

/// A line behind the bars.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct Line {
    pub(in crate::http) x1: String,
    pub(in crate::http) x2: String,
    pub(in crate::http) y: String,
}

/// A label.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::http) struct Text {
    pub(in crate::http) x: String,
    pub(in crate::http) y: String,
    /// `start`, `middle` or `end`.
    pub(in crate::http) anchor: &'static str,
    pub(in crate::http) text: String,
}

/// Stacked bars, a column each: its label, and its parts from the axis up. `colors`: what the parts look like, as the style sheet names it.
pub(in crate::http) fn bars(columns: &[(String, Vec<u64>)], colors: &[&'static str]) -> Svg {
    let highest = columns.iter().map(|(_, parts)| parts.iter().sum::<u64>()).max().unwrap_or(0);
    let step = step(highest);
    let top = (highest.div_ceil(step) * step).max(step);
    let (plot_width, plot_height) = (WIDTH - LEFT, HEIGHT - TOP - BOTTOM);
    let y = |value: u64| TOP + plot_height * (1.0 - value as f64 / top as f64);
    let slot = plot_width / columns.len().max(1) as f64;
    let mut svg =
        Svg { view: format!("0 0 {WIDTH} {HEIGHT}"), rects: Vec::new(), lines: Vec::new(), texts: Vec::new() };
    for value in (0..=top / step).map(|at| at * step) {
        svg.lines.push(Line { x1: number(LEFT), x2: number(WIDTH), y: number(y(value)) });
        let text = short(value);
        svg.texts.push(Text { x: number(LEFT - 6.0), y: number(y(value) + 4.0), anchor: "end", text });
    }
    for (at, (_, parts)) in columns.iter().enumerate() {
        let mut below = 0;
        for (part, class) in parts.iter().zip(colors).filter(|(part, _)| **part > 0) {
            let height = y(below) - y(below + part);
            below += part;
            svg.rects.push(Rect {
                class,
                x: number(LEFT + slot * (at as f64 + 0.1)),
                y: number(y(below)),
                width: number(slot * 0.8),
                height: number(height),
            });
        }
    }
    let last = columns.len().saturating_sub(1);
    let mut labelled = vec![(0, "start"), (last / 2, "middle"), (last, "end")];
    labelled.dedup_by_key(|(at, _)| *at);
    for (at, anchor) in labelled {
        let Some((label, _)) = columns.get(at) else { continue };
        let place = match anchor {
            "start" => 0.0,
            "middle" => 0.5,
            _ => 1.0,
        };
        let x = number(LEFT + slot * (at as f64 + place));
        svg.texts.push(Text { x, y: number(HEIGHT - 6.0), anchor, text: label.clone() });
    }
    svg
}

/// From line to line: 1, 2 or 5 and zeros, so that there are at most five.
fn step(highest: u64) -> u64 {
    let mut size = 1_u64;
    loop {
        for step in [size, 2 * size, 5 * size] {
            if highest <= 4 * step {
                return step;
            }
        }
        size = size.saturating_mul(10);
        if size > u64::MAX / 50 {
            return u64::MAX / 4;
        }
    }
}

/// `950`, `1.5k`, `2M`.
pub(in crate::http) fn short(value: u64) -> String {
    for (size, unit) in [(1_000_000_000_u64, "G"), (1_000_000, "M"), (1000, "k")] {
        if value >= size {
            let tenths = value / (size / 10);
            return match tenths % 10 {
                0 => format!("{}{unit}", tenths / 10),
                rest => format!("{}.{rest}{unit}", tenths / 10),
            };
        }
    }
    value.to_string()
}

/// To a tenth of a unit: a page of bars stays small.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn columns(values: &[&[u64]]) -> Vec<(String, Vec<u64>)> {
        values.iter().enumerate().map(|(at, parts)| (format!("c{at}"), parts.to_vec())).collect()
    }

    #[test]
    fn bars_are_as_high_as_their_values() {
        let svg = bars(&columns(&[&[4, 4], &[0, 0], &[2]]), &["good", "bad"]);
        // The highest line is at 8, 146 units above the axis.
        let heights: Vec<_> = svg.rects.iter().map(|it| (it.class, it.height.as_str())).collect();
        assert_eq!(heights, [("good", "73"), ("bad", "73"), ("good", "36.5")]);
        assert_eq!(svg.rects[1].y, "10");
        let texts: Vec<_> = svg.texts.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts, ["0", "2", "4", "6", "8", "c0", "c1", "c2"]);
    }

    #[test]
    fn nothing_and_very_much_can_be_drawn() {
        assert!(bars(&[], &["accent"]).rects.is_empty());
        let none = bars(&columns(&[&[0]]), &["accent"]);
        assert!(none.rects.is_empty());
        assert_eq!(none.lines.len(), 2);
        for highest in [1, 3, 4, 5, 99, 12_345, u64::MAX / 8] {
            let svg = bars(&columns(&[&[highest]]), &["accent"]);
            assert!((2..=6).contains(&svg.lines.len()), "{highest}: {}", svg.lines.len());
            assert!(svg.rects[0].y.parse::<f64>().unwrap() >= 9.9, "{highest}");
        }
    }

    #[test]
    fn large_numbers_are_short() {
        for (value, text) in
            [(0, "0"), (999, "999"), (1000, "1k"), (1550, "1.5k"), (2_000_000, "2M"), (3_100_000_000, "3.1G")]
        {
            assert_eq!(short(value), text);
        }
    }
}
