//! Pictures made smaller, and files that only say that they are pictures.

use image::{DynamicImage, GenericImageView as _, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

use super::*;
use crate::storage::{Fit, Format, Picture, View};

/// Red at the left, blue at the right.
fn halves(width: u32, height: u32) -> DynamicImage {
    let color = |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) };
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, color))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> &'static [u8] {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner().leak()
}

fn decoded(picture: &Picture) -> DynamicImage {
    image::load_from_memory(&picture.bytes).unwrap()
}

impl Ground {
    async fn picture(&self, bytes: &'static [u8], view: View) -> Result<Picture> {
        let ada = self.user();
        let path = format!("{}.bin", uuid::Uuid::now_v7());
        let object = self.put(&ada, "own", &path, bytes).await?;
        self.storage.picture(&ada, &object, view).await
    }
}

fn view(w: impl Into<Option<u32>>, h: impl Into<Option<u32>>) -> View {
    View { w: w.into(), h: h.into(), ..View::default() }
}

fn is_red(pixel: Rgba<u8>) -> bool {
    pixel[0] > 200 && pixel[2] < 60
}

fn is_blue(pixel: Rgba<u8>) -> bool {
    pixel[2] > 200 && pixel[0] < 60
}

#[tokio::test]
async fn a_picture_gets_the_size_that_is_wanted_and_stays_what_it_was() {
    let ground = Ground::new().await;
    let source = encoded(&halves(400, 200), ImageFormat::Png);
    for (wanted, size) in [
        (view(100, None), (100, 50)),
        (view(None, 50), (100, 50)),
        (view(800, None), (400, 200)),
        (view(100, 100), (100, 100)),
        (View { fit: Some(Fit::Inside), ..view(100, 100) }, (100, 50)),
        (View { fit: Some(Fit::Inside), ..view(1000, 1000) }, (400, 200)),
        (View { fit: Some(Fit::Contain), ..view(100, 100) }, (100, 100)),
        (View { fit: Some(Fit::Cover), ..view(30, 60) }, (30, 60)),
    ] {
        let made = ground.picture(source, wanted).await.unwrap();
        let image = decoded(&made);
        assert_eq!((made.format, image.dimensions()), (Format::Png, size), "{wanted}");
        let (w, h) = size;
        assert!(
            is_red(image.get_pixel(w / 8, h / 2)) && is_blue(image.get_pixel(w - 1 - w / 8, h / 2)),
            "{wanted}"
        );
    }
    let contained = ground.picture(source, View { fit: Some(Fit::Contain), ..view(100, 100) }).await.unwrap();
    assert_eq!(decoded(&contained).get_pixel(50, 5)[3], 0, "the margin is transparent");
}

#[tokio::test]
async fn formats_are_made_of_each_other() {
    let ground = Ground::new().await;
    for from in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif] {
        let source = encoded(&halves(64, 32), from);
        for (to, format) in [
            (Format::Jpeg, ImageFormat::Jpeg),
            (Format::Png, ImageFormat::Png),
            (Format::Webp, ImageFormat::WebP),
        ] {
            let wanted = View { format: Some(to), ..view(32, None) };
            let made = ground.picture(source, wanted).await.unwrap();
            assert_eq!((made.format, image::guess_format(&made.bytes).unwrap()), (to, format));
            assert!(is_red(decoded(&made).get_pixel(4, 8)), "{from:?} to {to:?}");
        }
    }
    let clear = DynamicImage::ImageRgba8(RgbaImage::from_pixel(8, 8, Rgba([0, 0, 0, 0])));
    let wanted = View { format: Some(Format::Jpeg), ..View::default() };
    let flat = ground.picture(encoded(&clear, ImageFormat::Png), wanted).await.unwrap();
    assert!(decoded(&flat).get_pixel(4, 4)[0] > 250, "what is transparent becomes white");
    let quality = |q| View { format: Some(Format::Jpeg), q: Some(q), ..View::default() };
    let noisy = RgbImage::from_fn(64, 64, |x, y| {
        Rgb([((x * 37) ^ (y * 91)) as u8, (x * y) as u8, (x + y * 13) as u8])
    });
    let noisy = encoded(&DynamicImage::ImageRgb8(noisy), ImageFormat::Png);
    let (low, high) = (
        ground.picture(noisy, quality(10)).await.unwrap(),
        ground.picture(noisy, quality(95)).await.unwrap(),
    );
    assert!(low.bytes.len() * 2 < high.bytes.len());
}

#[tokio::test]
async fn a_photo_stands_as_its_camera_says() {
    let ground = Ground::new().await;
    let jpeg = encoded(&halves(40, 20), ImageFormat::Jpeg);
    // Exif: one entry, orientation 6, which is a quarter turn.
    let exif =
        [&b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"[..]]
            .concat();
    let turned = [&jpeg[..2], &exif, &jpeg[2..]].concat().leak();
    let made = ground.picture(turned, view(10, None)).await.unwrap();
    let image = decoded(&made);
    assert_eq!(image.dimensions(), (10, 20));
    assert!(is_red(image.get_pixel(5, 2)) && is_blue(image.get_pixel(5, 17)));
}

#[tokio::test]
async fn what_is_no_picture_or_too_much_of_one_is_refused() {
    let ground = Ground::new().await;
    for bytes in [&b""[..], b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"GIF89a", PNG, b"\xff\xd8\xff"] {
        let refused = ground.picture(bytes, view(10, None)).await.unwrap_err();
        assert_eq!(refused.code(), kernel::Code::InvalidInput, "{bytes:?}: {refused}");
    }
    // A picture of a few bytes that says it is huge.
    for (width, height) in [(20_000_u32, 20_000_u32), (100_000, 10), (u32::MAX >> 1, u32::MAX >> 1)] {
        let mut bomb = encoded(&halves(2, 2), ImageFormat::Png).to_vec();
        bomb[16..20].copy_from_slice(&width.to_be_bytes());
        bomb[20..24].copy_from_slice(&height.to_be_bytes());
        let crc = crc32(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        let refused = ground.picture(bomb.leak(), view(10, None)).await.unwrap_err();
        assert_eq!(refused.code(), kernel::Code::TooLarge, "{width} {height}: {refused}");
    }
    let source = encoded(&halves(20, 10), ImageFormat::Png);
    for (wanted, at) in [
        (view(0, None), "/w"),
        (view(None, 4_097), "/h"),
        (View { q: Some(0), ..view(1, None) }, "/q"),
        (View { q: Some(101), ..view(1, None) }, "/q"),
        (View { fit: Some(Fit::Cover), ..view(1, None) }, "/fit"),
        (View { fit: Some(Fit::Inside), ..View::default() }, "/fit"),
    ] {
        let refused = ground.picture(source, wanted).await.unwrap_err();
        assert_eq!((refused.code(), refused.pointer()), (kernel::Code::InvalidInput, Some(at)));
    }
}

/// CRC-32 as PNG has it (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8)
            .fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (!(crc & 1)).wrapping_add(1)))
    })
}

#[tokio::test]
async fn a_picture_that_was_made_is_kept_for_who_may_read_the_file() {
    let ground = Ground::new().await;
    let ada = ground.user();
    let source = encoded(&halves(40, 20), ImageFormat::Png);
    let object = ground.put(&ada, "own", "a.png", source).await.unwrap();
    let first = ground.storage.picture(&ada, &object, view(10, None)).await.unwrap();
    std::fs::remove_dir_all(ground.dir.path().join(ground.env.id().to_string()).join("files")).unwrap();
    let again = ground.storage.picture(&ada, &object, view(10, None)).await.unwrap();
    assert_eq!(first.bytes, again.bytes);
    assert!(ground.storage.picture(&ada, &object, view(11, None)).await.is_err(), "that one was not made");
    let other = Guest::maker(Env::for_upkeep(ground.env.tenant(), EnvId::new()));
    assert!(ground.storage.picture(&other, &object, view(10, None)).await.is_err());
}
