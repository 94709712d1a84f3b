from solov2.data.fingerprints import count_known, pack


def record(name: str, width: int = 4, height: int = 3) -> dict[str, object]:
    return {"id": 1, "file_name": name, "width": width, "height": height}


def test_pictures_are_known_by_name_and_size() -> None:
    packed = pack([record("train/a.jpg"), record("b.jpg"), record("b.jpg")])
    assert count_known(packed, [record("a.jpg"), record("elsewhere\\b.jpg"), record("c.jpg")]) == 2
    assert count_known(packed, [record("a.jpg", width=5), record("a.png")]) == 0
    assert len(packed) == 16  # two fingerprints of five bytes


def test_the_order_does_not_matter() -> None:
    names = [record(f"{number}.jpg") for number in range(20)]
    assert pack(names) == pack(names[::-1])


def test_nothing_known() -> None:
    assert pack([]) == ""
    assert count_known("", [record("a.jpg")]) == 0
    assert count_known("not base64!", [record("a.jpg")]) == 0
