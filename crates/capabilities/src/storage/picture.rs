//! Pictures in another size or format: how one is wanted, and the making of it.

use std::fmt;
use std::io::Cursor;
use std::str::FromStr;

use bytes::Bytes;
use image::codecs::{jpeg::JpegEncoder, png::PngEncoder, webp::WebPEncoder};
use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder as _, ImageEncoder as _, ImageFormat, ImageReader, Rgba};
use kernel::{Code, Error, Result};

/// The widest and highest that is made, in pixels.
const EDGE: u32 = 4_096;

/// The largest picture that is read, in pixels: what a good camera makes.
const PIXELS: u64 = 50_000_000;

/// The widest and highest that is read, in pixels.
const SIDE: u32 = 32_768;

/// How much memory the reading of one may take, in bytes.
const MEMORY: u64 = 320 << 20;

const QUALITY: u8 = 80;

/// How a picture is wanted; what is left out stays as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct View {
    /// The width in pixels.
    pub w: Option<u32>,
    /// The height in pixels.
    pub h: Option<u32>,
    /// How it fits between them.
    pub fit: Option<Fit>,
    /// Its format.
    pub format: Option<Format>,
    /// The quality of a jpeg, 1 to 100.
    pub q: Option<u8>,
}

/// How a picture fits into a width and a height.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fit {
    /// It fills both, and what stands out is cut off.
    Cover,
    /// All of it is there, with a margin where it has other proportions.
    Contain,
    /// All of it is there, in its own proportions, and never larger than it was.
    Inside,
}

/// A format that is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    Jpeg,
    Png,
    /// Without loss.
    Webp,
}

/// A picture that was made.
#[derive(Debug, Clone)]
pub struct Picture {
    /// The file.
    pub bytes: Bytes,
    /// Its format.
    pub format: Format,
}

impl Format {
    /// The media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Jpeg => "image/jpeg",
            Format::Png => "image/png",
            Format::Webp => "image/webp",
        }
    }

    /// What names of such files end with.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Format::Jpeg => "jpg",
            Format::Png => "png",
            Format::Webp => "webp",
        }
    }
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "jpeg" | "jpg" => Format::Jpeg,
            "png" => Format::Png,
            "webp" => Format::Webp,
            _ => return Err(()),
        })
    }
}

impl FromStr for Fit {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "cover" => Fit::Cover,
            "contain" => Fit::Contain,
            "inside" => Fit::Inside,
            _ => return Err(()),
        })
    }
}

/// The picture in `bytes`, of which nothing but the beginning is read yet.
fn opened(bytes: &[u8]) -> Result<(ImageFormat, impl image::ImageDecoder + '_)> {
    let source = image::guess_format(bytes).ok().filter(|format| {
        matches!(format, ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif | ImageFormat::WebP)
    });
    let source = source.ok_or_else(|| {
        Error::new(Code::InvalidInput, "this file is no picture that can be made smaller")
            .hint("png, jpeg, gif and webp can; ask for others without w, h, fit, format and q")
    })?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), source);
    let mut limits = image::Limits::default();
    limits.max_image_width = Some(SIDE);
    limits.max_image_height = Some(SIDE);
    limits.max_alloc = Some(MEMORY);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(unreadable)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS {
        let message = format!("the picture has {width} × {height} pixels, at most {PIXELS} are read");
        return Err(Error::new(Code::TooLarge, message));
    }
    Ok((source, decoder))
}

impl View {
    /// Whether the file is wanted as it is.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what is not made.
    ///
    /// # Errors
    /// `invalid_input` with a pointer to the field.
    pub(super) fn check(&self) -> Result<()> {
        for (at, side) in [("/w", self.w), ("/h", self.h)] {
            if side.is_some_and(|side| !(1..=EDGE).contains(&side)) {
                return Err(Error::invalid(at, format!("a picture is 1 to {EDGE} pixels wide and high")));
            }
        }
        if self.q.is_some_and(|q| !(1..=100).contains(&q)) {
            return Err(Error::invalid("/q", "the quality is 1 to 100"));
        }
        let both = self.w.is_some() && self.h.is_some();
        match self.fit {
            Some(Fit::Cover | Fit::Contain) if !both => {
                Err(Error::invalid("/fit", "cover and contain need both w and h"))
            }
            Some(Fit::Inside) if self.w.is_none() && self.h.is_none() => {
                Err(Error::invalid("/fit", "inside needs w or h"))
            }
            _ => Ok(()),
        }
    }

    /// The picture in `bytes` as it is wanted. Takes the processor for long: not for threads that serve.
    ///
    /// # Errors
    /// `invalid_input` for what is no picture, `too_large` for one that is too large to be read.
    pub(super) fn of(&self, bytes: &[u8]) -> Result<Picture> {
        let (source, mut decoder) = opened(bytes)?;
        let orientation = decoder.orientation().map_err(unreadable)?;
        let colors = decoder.icc_profile().ok().flatten();
        let mut image = DynamicImage::from_decoder(decoder).map_err(unreadable)?;
        image.apply_orientation(orientation);
        let format = self.format.unwrap_or(match source {
            ImageFormat::Jpeg => Format::Jpeg,
            ImageFormat::WebP => Format::Webp,
            _ => Format::Png,
        });
        let image = self.sized(image, format);
        let bytes = encode(&image, format, self.q.unwrap_or(QUALITY), colors)?.into();
        Ok(Picture { bytes, format })
    }

    /// How many pixels the picture in `bytes` has, by what its beginning says.
    ///
    /// # Errors
    /// As [`View::of`].
    pub(super) fn pixels(bytes: &[u8]) -> Result<u64> {
        let (width, height) = opened(bytes)?.1.dimensions();
        Ok(u64::from(width) * u64::from(height))
    }

    fn sized(&self, image: DynamicImage, format: Format) -> DynamicImage {
        let (width, height) = (image.width(), image.height());
        let by = |side: u32, of: u32, other: u32| -> u32 {
            let scaled = (u64::from(side) * u64::from(other) + u64::from(of) / 2) / u64::from(of.max(1));
            u32::try_from(scaled).unwrap_or(EDGE).clamp(1, EDGE)
        };
        match (self.w, self.h) {
            (None, None) => image,
            (Some(w), Some(h)) => match self.fit.unwrap_or(Fit::Cover) {
                Fit::Cover => {
                    let image = nearer(image, w, h);
                    image.resize_to_fill(w, h, FilterType::CatmullRom)
                }
                Fit::Contain => {
                    let inner = nearer(image, w, h).resize(w, h, FilterType::CatmullRom);
                    // What has no transparency gets a white margin.
                    let margin = if format == Format::Jpeg { [255; 4] } else { [0; 4] };
                    let mut canvas = image::RgbaImage::from_pixel(w, h, Rgba(margin));
                    let (x, y) = ((w - inner.width().min(w)) / 2, (h - inner.height().min(h)) / 2);
                    image::imageops::overlay(&mut canvas, &inner.to_rgba8(), i64::from(x), i64::from(y));
                    DynamicImage::ImageRgba8(canvas)
                }
                Fit::Inside if width <= w && height <= h => image,
                Fit::Inside => nearer(image, w, h).resize(w, h, FilterType::CatmullRom),
            },
            (Some(w), None) if width <= w => image,
            (None, Some(h)) if height <= h => image,
            (Some(w), None) => exactly(image, w, by(w, width, height)),
            (None, Some(h)) => exactly(image, by(h, height, width), h),
        }
    }
}

fn exactly(image: DynamicImage, w: u32, h: u32) -> DynamicImage {
    nearer(image, w, h).resize_exact(w, h, FilterType::CatmullRom)
}

/// A picture that is much too large, made smaller in a quick way first.
fn nearer(image: DynamicImage, w: u32, h: u32) -> DynamicImage {
    let (w, h) = (w.saturating_mul(3), h.saturating_mul(3));
    if image.width() / 2 > w && image.height() / 2 > h {
        // Both sides stay at least as large as they are wanted.
        let (over_w, over_h) = (image.width() / w.max(1), image.height() / h.max(1));
        let over = over_w.min(over_h).max(1);
        return image.thumbnail_exact(image.width() / over, image.height() / over);
    }
    image
}

fn encode(image: &DynamicImage, format: Format, quality: u8, colors: Option<Vec<u8>>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // What cannot be said of the colors is left out.
    macro_rules! write {
        ($encoder:expr, $image:expr) => {{
            let mut encoder = $encoder;
            if let Some(colors) = colors {
                let _ = encoder.set_icc_profile(colors);
            }
            $image.write_with_encoder(encoder)
        }};
    }
    let written = match format {
        Format::Jpeg => {
            let opaque = DynamicImage::ImageRgb8(flat(image));
            write!(JpegEncoder::new_with_quality(&mut bytes, quality), opaque)
        }
        Format::Png => write!(PngEncoder::new(&mut bytes), eight_bits(image)),
        Format::Webp => write!(WebPEncoder::new_lossless(&mut bytes), eight_bits(image)),
    };
    written.map_err(Error::internal)?;
    Ok(bytes)
}

fn eight_bits(image: &DynamicImage) -> DynamicImage {
    if image.color().has_alpha() {
        DynamicImage::ImageRgba8(image.to_rgba8())
    } else {
        DynamicImage::ImageRgb8(image.to_rgb8())
    }
}

/// Without transparency, on white.
fn flat(image: &DynamicImage) -> image::RgbImage {
    if !image.color().has_alpha() {
        return image.to_rgb8();
    }
    let see_through = image.to_rgba8();
    image::RgbImage::from_fn(image.width(), image.height(), |x, y| {
        let Rgba([r, g, b, a]) = *see_through.get_pixel(x, y);
        let over = |c: u8| {
            let (c, a) = (u32::from(c), u32::from(a));
            u8::try_from((c * a + 255 * (255 - a)) / 255).unwrap_or(u8::MAX)
        };
        image::Rgb([over(r), over(g), over(b)])
    })
}

fn unreadable(error: image::ImageError) -> Error {
    match error {
        image::ImageError::Limits(_) => {
            Error::new(Code::TooLarge, "the picture takes too much memory to be read").source(error)
        }
        error => Error::new(Code::InvalidInput, "the picture cannot be read").source(error),
    }
}

impl fmt::Display for View {
    /// As a part of a tag.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |n: Option<u32>| n.map(|n| n.to_string()).unwrap_or_default();
        let fit = match self.fit {
            None => "",
            Some(Fit::Cover) => "cover",
            Some(Fit::Contain) => "contain",
            Some(Fit::Inside) => "inside",
        };
        let format = self.format.map_or("", Format::extension);
        write!(f, "{}x{}{fit}{format}{}", number(self.w), number(self.h), number(self.q.map(u32::from)))
    }
}
