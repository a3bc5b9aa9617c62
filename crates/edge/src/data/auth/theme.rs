//! The colour of the sign-in page: the app's own, made light or dark enough to be read (WCAG 2.2 §1.4.3).

/// A colour of the sRGB space.
type Rgb = [u8; 3];

/// What stands behind it, by day and by night; as in `ui.css`.
const SHEET: [Rgb; 2] = [[0xff, 0xff, 0xff], [0x1d, 0x1f, 0x22]];

const BLACK: Rgb = [0, 0, 0];
const WHITE: Rgb = [0xff, 0xff, 0xff];

/// How much a text has to differ from what is behind it.
const CONTRAST: f64 = 4.5;

/// The rules that put `accent` (`#rrggbb`) in the place of the page's own colour; none where it is no colour.
pub(super) fn style(accent: &str) -> Option<String> {
    let accent = read(accent)?;
    let rule = |night: usize| {
        let shade = readable(accent, SHEET[night]);
        let on = if contrast(shade, WHITE) >= contrast(shade, BLACK) { WHITE } else { BLACK };
        format!(":root {{ --accent: {}; --on: {}; }}", written(shade), written(on))
    };
    Some(format!("{}\n@media (prefers-color-scheme: dark) {{ {} }}\n", rule(0), rule(1)))
}

fn read(text: &str) -> Option<Rgb> {
    let digits = text.strip_prefix('#')?;
    if digits.len() != 6 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let part = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
    Some([part(0)?, part(2)?, part(4)?])
}

fn written([red, green, blue]: Rgb) -> String {
    format!("#{red:02x}{green:02x}{blue:02x}")
}

/// The colour, as much nearer to black or white as it takes to be read on `ground`.
fn readable(colour: Rgb, ground: Rgb) -> Rgb {
    let towards = if luminance(ground) > 0.5 { BLACK } else { WHITE };
    let mixed = |share: u32| {
        let mix = |i: usize| (u32::from(colour[i]) * (20 - share) + u32::from(towards[i]) * share) / 20;
        [0, 1, 2].map(|i| u8::try_from(mix(i)).unwrap_or(u8::MAX))
    };
    (0..20).map(mixed).find(|shade| contrast(*shade, ground) >= CONTRAST).unwrap_or(towards)
}

fn contrast(a: Rgb, b: Rgb) -> f64 {
    let (a, b) = (luminance(a), luminance(b));
    (a.max(b) + 0.05) / (a.min(b) + 0.05)
}

fn luminance(colour: Rgb) -> f64 {
    let [red, green, blue] = colour.map(|part| {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
    });
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_colour_can_be_read_by_day_and_by_night() {
        for text in ["#14532d", "#ffff00", "#000000", "#ffffff", "#808080", "#ff0000", "#0000ff", "#00ff7f"] {
            let colour = read(text).unwrap();
            for sheet in SHEET {
                let shade = readable(colour, sheet);
                let on = contrast(shade, WHITE).max(contrast(shade, BLACK));
                assert!(contrast(shade, sheet) >= CONTRAST && on >= CONTRAST, "{text} {sheet:?} {shade:?}");
            }
        }
        assert_eq!(
            readable(read("#14532d").unwrap(), SHEET[0]),
            [0x14, 0x53, 0x2d],
            "left as it is where it can be"
        );
        assert!(style("#14532d").unwrap().starts_with(":root { --accent: #14532d; --on: #ffffff; }"));
    }

    #[test]
    fn what_is_no_colour_gets_into_no_style() {
        for bad in ["", "#fff", "red", "#14532", "#14532g", "#+4532d", "14532d0", "#14532d;}body{", "#é532d1"]
        {
            assert_eq!(style(bad), None, "{bad}");
        }
    }
}
