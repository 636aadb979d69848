"""Laws of classes and the labels that mean them."""

import re
import unicodedata

import pytest

from configs.errors import DataError
from ensemble.data.labels import fold, map_classes, share_classes

EMOTIONS = ["anger", "happiness", "neutral", "sadness"]


def test_without_a_wish_all_classes_are_kept_in_order():
    classes = map_classes(["sad", "Happy", "anger"])

    assert classes.names == ("anger", "Happy", "sad")
    assert [classes.index(label) for label in classes.names] == [0, 1, 2]


def test_the_order_asked_for_is_kept_and_others_are_left_out():
    classes = map_classes(EMOTIONS, classes=["sadness", "anger"])

    assert classes.names == ("sadness", "anger")
    assert [classes.index(label) for label in EMOTIONS] == [1, None, None, 0]


def test_spellings_are_one_class_in_lower_case_if_that_occurs():
    classes = map_classes(["ANGER", "anger", " anger ", "Fear", "fear"])

    assert classes.names == ("anger", "fear")
    assert classes.index("AnGeR") == 0
    assert classes.notes == ("4 spellings are read as 2 classes without regard to case",)


@pytest.mark.parametrize(
    ("found", "names"),
    [
        (["anger", "DISGUST", "DISGUST", "disgust"], ("anger", "disgust")),
        (["anger", "Anger", "DISGUST"], ("anger", "disgust")),  # in the style of the others
        (["ANGER", "Anger", "ANGER", "FEAR"], ("ANGER", "FEAR")),  # lower case does not occur
        (["anger", "Fear", "DISGUST"], ("anger", "DISGUST", "Fear")),  # as the data has them
    ],
)
def test_classes_of_several_spellings_take_one_style(found, names):
    assert map_classes(found).names == names


def test_a_small_class_close_to_a_large_one_is_reported():
    classes = map_classes(["happy"] * 12 + ["Hapy "] * 3 + ["sad"] * 4 + ["s1"] * 9 + ["s2"])

    assert classes.names == ("happy", "Hapy", "s1", "s2", "sad")
    assert classes.notes == (
        "'Hapy' is a class of 3 images beside 'happy' of 12. "
        "If it is misspelt, join it with --merge happy=Hapy",
    )


@pytest.mark.parametrize("name", ["hapy", "happyy", "haappy"])
def test_a_typo_is_reported_whatever_the_sizes(name):
    (note,) = map_classes([name] * 3 + ["happy"] * 7 + ["sad"]).notes

    assert note.startswith(f"'{name}' is a class of 3 images beside 'happy' of 7.")


def test_a_typo_in_one_of_several_words_is_reported():
    (note,) = map_classes(["very_hapy"] * 4 + ["very_happy"] * 5).notes

    assert "--merge very_happy=very_hapy" in note


@pytest.mark.parametrize("found", [["fear", "tear"], ["happy"] * 9 + ["sad"]])
def test_classes_of_like_size_or_unlike_name_are_not_reported(found):
    assert map_classes(found).notes == ()


def test_a_misspelt_class_names_its_near_miss_in_any_case():
    with pytest.raises(DataError, match="Did you mean 'NEUTRAL'"):
        map_classes(["NEUTRAL", "HAPPY"], classes=["netural", "happy"])


def test_a_class_is_called_as_the_user_wrote_it():
    assert map_classes(["ANGER", "FEAR"], classes=["Fear", "anger"]).names == ("Fear", "anger")


def test_unicode_forms_are_one_class():
    forms = [unicodedata.normalize(form, "müde") for form in ("NFC", "NFD")]

    assert fold(forms[0]) == fold(forms[1])
    assert len(map_classes([*forms, "wach"]).names) == 2


def test_a_synonym_finds_the_class_of_the_data_and_says_so():
    classes = map_classes(EMOTIONS, classes=["neutral", "happy", "sad"])

    assert classes.names == ("neutral", "happy", "sad")
    assert classes.index("happiness") == 1
    assert classes.notes == ("happy reads 'happiness'", "sad reads 'sadness'")


def test_an_exact_name_wins_over_a_synonym():
    classes = map_classes(["happy", "joy", "sad"], classes=["joy", "sad"])

    assert classes.index("joy") == 0
    assert classes.index("happy") is None


def test_an_ambiguous_synonym_is_unknown():
    with pytest.raises(DataError, match="Unknown class 'happiness'"):
        map_classes(["happy", "joy", "sad"], classes=["happiness", "sad"])


def test_synonyms_in_the_data_stay_apart_with_a_note():
    classes = map_classes(["happy", "happiness", "sad"])

    assert len(classes.names) == 3
    assert classes.notes == ("'happiness', 'happy' are kept apart; --merge can join them",)


def test_merged_members_are_no_classes_of_their_own():
    classes = map_classes(EMOTIONS, merge={"negative": ["Anger", "sad"]})

    assert classes.names == ("happiness", "negative", "neutral")
    assert classes.index("anger") == classes.index("sadness") == 1
    assert "negative joins 'anger', 'sadness'" in classes.notes


def test_merging_into_a_class_keeps_its_images():
    classes = map_classes(EMOTIONS, merge={"sadness": ["anger"]}, classes=["neutral", "sadness"])

    assert classes.index("anger") == classes.index("sadness") == 1


def test_merging_into_the_synonym_of_a_class_keeps_its_images():
    classes = map_classes(EMOTIONS, merge={"happy": ["neutral"]})

    assert classes.names == ("anger", "happy", "sadness")
    assert classes.index("happiness") == classes.index("neutral") == 1


def test_two_classes_can_change_names():
    classes = map_classes(["a", "b", "c"], merge={"a": ["b"], "b": ["a"]})

    assert [classes.names[classes.index(label)] for label in "abc"] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("classes", "merge", "message"),
    [
        (["hapiness", "anger"], {}, "Unknown class 'hapiness'. Did you mean 'happiness'"),
        ([], {"negative": ["fear", "anger"]}, "Unknown class 'fear'"),
        (["anger", "sadness"], {"negative": ["anger"]}, "Unknown class 'anger'"),
        (["sad", "sadness"], {}, "'sadness' is asked for twice"),
        ([], {"x": ["anger"], "y": ["anger"]}, "'anger' is asked for twice"),
        (["anger"], {}, "Two classes are needed"),
        ([], {"all": EMOTIONS}, "Two classes are needed"),
    ],
)
def test_what_cannot_be_meant_is_refused(classes, merge, message):
    with pytest.raises(DataError, match=message):
        map_classes(EMOTIONS, classes=classes, merge=merge)


def test_a_single_class_in_the_data_is_refused():
    with pytest.raises(DataError, match="Classes of the data: 'happy'"):
        map_classes(["happy", "happy"])


MODEL = ["anger", "contempt", "happiness", "neutral"]


def test_shared_classes_are_those_mapped_and_those_of_one_name():
    found = ["Anger", "joy", "joy", "calm", "bored"]

    shared = share_classes(found, classes=MODEL, mapping={"Neutral": ["calm"]})

    assert shared.names == ("anger", "happiness", "neutral")  # joy is another name of happiness
    assert [shared.index(label) for label in found] == [0, 1, 1, 2, None]


def test_several_labels_may_mean_one_class_and_its_own_name_does_too():
    found = ["anger", "rage", "neutral", "disgust"]

    shared = share_classes(found, classes=MODEL, mapping={"anger": ["rage", "disgust"]})

    assert shared.names == ("anger", "neutral")
    assert [shared.index(label) for label in found] == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        ({"hapiness": ["joyful"]}, "Unknown class of the model 'hapiness'. Did you mean 'happ"),
        ({"happiness": ["joyfull"]}, "Unknown class 'joyfull'. Did you mean 'joyful'?"),
        ({"happiness": ["joyful"], "neutral": ["joyful"]}, "'joyful' is asked for twice"),
        ({"happiness": ["joyful"]}, "share 'happiness', and two classes"),
        ({}, "share no class, and two classes"),
    ],
)
def test_a_mistaken_mapping_is_told(mapping, told):
    with pytest.raises(DataError, match=re.escape(told)):
        share_classes(["joyful", "bored"], classes=MODEL, mapping=mapping)
