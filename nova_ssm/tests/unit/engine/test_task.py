#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

"""What a durable task owes, by default."""

from nova_ssm.engine import task


class Counts(task.Task):

    def __init__(self):
        super().__init__()
        self.calls = []

    def execute(self, x, y=2):
        self.calls.append(('execute', x, y))
        return x + y

    def recover(self, x, y=2):
        self.calls.append(('recover', x, y))
        return self.execute(x, y=y)


class Undoes(Counts):

    def revert(self, x, **kwargs):
        """Give x back."""


def test_only_the_next_execution_is_a_recovery():
    counts = Counts()
    counts.recover_first()
    assert counts.execute(1, y=5) == 6
    assert counts.execute(2) == 4
    assert counts.calls == [('recover', 1, 5), ('execute', 1, 5),
                            ('execute', 2, 2)]


def test_a_recovery_that_fails_is_over_too():
    counts = Counts()
    counts.recover_first()
    try:
        counts.execute('text')
    except TypeError:
        assert counts.execute(1) == 3
    assert [call[0] for call in counts.calls] == [
        'recover', 'execute', 'execute']


def test_recovering_is_to_execute_again_by_default():
    class Plain(task.Task):
        def execute(self, x):
            return x

    plain = Plain()
    plain.recover_first()
    assert plain.recover(3) == 3
    assert plain.execute(3) == 3


def test_what_a_task_needs_is_not_changed_by_a_recovery_to_come():
    counts = Counts()
    requires, optional = set(counts.requires), set(counts.optional)
    counts.recover_first()
    assert (set(counts.requires), set(counts.optional)) == (
        requires, optional) == ({'x'}, {'y'})


def test_a_task_has_an_effect_and_may_run_again_unless_it_says_otherwise():
    assert Counts().had_effect(None)
    assert not Counts.once
    assert Counts.reversion == ''

    class Looks(Counts):
        effect = False

    assert not Looks().had_effect(None)


def test_only_who_can_revert_undoes():
    assert Undoes.undoes()
    assert not Counts.undoes()
