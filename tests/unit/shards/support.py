"""Records to write, shared by the tests of this folder."""

from optical_scale.records import Box, Caption, CaptionedImage, Phrase, TextPair


def pairs(count, language="sw", corpus="news"):
    return [
        TextPair(f"{corpus}-{language}-{i:08d}", language, f"sentence {i}\u2028", f"sentensi {i} ☃", corpus)
        for i in range(count)
    ]


def images(count):
    return [
        CaptionedImage(
            key=f"f30k-{i}",
            image=bytes([i]) * (700 + i),
            extension="png" if i % 2 else "jpg",
            width=40,
            height=30,
            captions=(
                Caption("en", "Two dogs .", (Phrase("1", "people/animals", 0, 8),)),
                Caption("de", "Zwei Hunde ."),
            ),
            regions={"1": (Box(0, 0.5, 10, 20), Box(1, 2, 3, 4)), "3": (Box(0, 0, 40, 30),)},
            corpus="f30k",
        )
        for i in range(count)
    ]
