"""Any results.json is read, or refused in one sentence."""

from hypothesis import given
from hypothesis import strategies as st

from loopscale.storage import plain
from loopscale.study.document import document_of, results_from
from tests.test_any_input import CASES, mutated, told


@CASES
@given(data=st.data())
def test_any_results(study, data):
    with told():
        results_from(data.draw(mutated(plain(document_of(study())))))
