"""The runner on a book of two small chapters: what is stale, what is stored, what a comparison refuses."""

import ast
import base64
import errno
import functools
import io
import json
import os
import re
import shutil
import subprocess
import sys

import nbformat
import numpy as np
import pytest
from PIL import Image

from tools import book, bootstrap, colophon, figures, kernels, notebooks, offline, provenance, references, run
from tools.project import REPOSITORY, Project

FRONT = """---
jupytext:
  text_representation: {extension: .md, format_name: myst, format_version: 0.13}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# A chapter

"""
CHAPTER = (
    FRONT
    + """```{code-cell} ipython3
:tags: [parameters]

scale = "paper"
```

```{code-cell} ipython3
import matplotlib.pyplot as plt
from myst_nb import glue

print(f"{1 / 3:.6f} at the", scale, "scale")
print(object())
```

```{code-cell} ipython3
:tags: [hide-input]

fig, ax = plt.subplots(figsize=(2, 1))
ax.plot([1, 3, 2])
glue("figure", fig, display=False)
plt.show()
```
"""
)
DRAFT = CHAPTER.replace("kernelspec:", "draft: true\nkernelspec:", 1)
BROKEN = CHAPTER.replace("print(object())", "1 / 0")
DEAD = CHAPTER.replace("print(object())", "import os; os._exit(3)")
ILL_WRITTEN = CHAPTER.replace(":tags: [hide-input]", ":tags: [hide-input")


def make_project(root, **sources):
    project = Project(root)
    for folder in (project.book, project.library):
        folder.mkdir(parents=True, exist_ok=True)
    project.lock.write_text("numpy==2\n")
    (project.library / "model.py").write_text("x = 1\n")
    for name, text in sources.items():
        (project.book / f"{name}.md").write_text(text)
    return project


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path, one=CHAPTER)


@pytest.fixture(scope="session")
def executed(tmp_path_factory):
    """The same chapter, run twice at the sample scale in fresh kernels."""
    folder = tmp_path_factory.mktemp("runs")
    source = make_project(folder, one=CHAPTER).book / "one.md"
    fresh = notebooks.convert(source)
    return [run.execute(fresh, folder, {"scale": "sample"}) for _ in range(2)]


def using_model(executed):
    """The run as though the chapter had imported the module of its project's library."""
    nb = nbformat.from_dict(executed[0])
    nb.metadata.provenance = {"modules": ["model.py"]}
    return nb


@pytest.fixture
def finished(project, executed):
    """A project whose only chapter has a stored sample run, which imported one module."""
    nb = using_model(executed)
    wanted = provenance.key(project, project.book / "one.md", "sample")
    notebooks.write(provenance.record(nb, wanted), project.runs("sample") / "one.ipynb")
    return project


def never(*_):
    raise AssertionError("called what must not be called here")


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


# What a notebook is


def test_front_matter_tells_notebooks_from_pages(tmp_path):
    book = make_project(tmp_path, chapter=CHAPTER, page="# Page\n\n---\n", titled="---\ntitle: x\n---\n").book
    assert [path.name for path in notebooks.chapters(book)] == ["chapter.md"]


def test_two_runs_store_the_same_bytes(executed):
    # but for the memory address, which the chapter prints to try the sanitiser
    for nb in executed:
        stream = notebooks.code_cells(nb)[1].outputs[0]
        assert "<object object at 0x" in stream.text
    first, second = (nbformat.from_dict(nb) for nb in executed)
    second.cells[3].outputs = first.cells[3].outputs
    assert notebooks.to_bytes(first) == notebooks.to_bytes(second)
    assert b"duration" not in notebooks.to_bytes(first)
    assert b"start_time" not in notebooks.to_bytes(first)


def test_normalise_is_idempotent_and_survives_the_disk(executed, tmp_path):
    nb = nbformat.from_dict(executed[0])
    stored = notebooks.to_bytes(nb)
    assert notebooks.to_bytes(notebooks.normalise(nb)) == stored
    notebooks.write(nb, tmp_path / "x.ipynb")
    assert notebooks.to_bytes(notebooks.read(tmp_path / "x.ipynb")) == stored
    assert notebooks.outputs_digest(notebooks.read(tmp_path / "x.ipynb")) == notebooks.outputs_digest(nb)


def test_streams_in_pieces_become_one():
    pieces = [nbformat.v4.new_output("stream", name="stdout", text=text) for text in ("a", "b\n", "c")]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=pieces)])
    assert [output.text for output in notebooks.normalise(nb).cells[0].outputs] == ["ab\nc"]


def test_parameters_are_injected_and_figures_stored(executed):
    nb = executed[0]
    assert [notebooks.is_injected(cell) for cell in nb.cells].count(True) == 1
    assert "at the sample scale" in notebooks.code_cells(nb)[1].outputs[0].text
    drawn = notebooks.code_cells(nb)[2].outputs
    assert len(figures.figures(drawn)) == 2  # displayed, and glued
    assert not figures.figures(
        notebooks.code_cells(notebooks.without_figures(nbformat.from_dict(nb)))[2].outputs
    )


def test_flaws_are_named():
    error = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
    cells = [
        nbformat.v4.new_code_cell("x"),
        nbformat.v4.new_code_cell("y", execution_count=1, outputs=[error]),
    ]
    found = notebooks.flaws(nbformat.v4.new_notebook(cells=cells))
    assert found == ["cell 1 was not executed", "cell 2 ended in an error"]
    empty = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", execution_count=1)])
    assert notebooks.flaws(empty) == ["no cell has an output"]


# Some chapters, and drafts


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], ["08_pruning", "09_classes", "a1_exact"]),
        (["08"], ["08_pruning"]),
        (["a1", "08_pruning"], ["08_pruning", "a1_exact"]),
        (["08", "08_pruning"], ["08_pruning"]),
    ],
)
def test_chapters_are_chosen_by_name_or_number(tmp_path, names, found):
    folder = make_project(tmp_path, **dict.fromkeys(["08_pruning", "09_classes", "a1_exact"], CHAPTER)).book
    assert [path.stem for path in notebooks.chosen(folder, names)] == found


@pytest.mark.parametrize("command", ["book", "freeze", "validate", "reproducible"])
def test_a_chapter_that_is_not_there_is_refused_with_those_that_are(project, monkeypatch, capsys, command):
    monkeypatch.setitem(book.COMMANDS, command, never)
    assert book.main(["--root", str(project.root), command, "on", "one", "8"]) == 1
    said = "CHAPTERS: expected names or numbers of chapters, got on 8; there are one\n"
    assert capsys.readouterr().err == said


def test_tests_of_a_chapter_that_is_not_there_are_none():
    command = [sys.executable, "-m", "pytest", "-p", "tools.figures", "--chapters", "01 0"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: CHAPTERS: expected names or numbers of chapters, got 0; there are 01_" in done.stderr


def test_tests_of_some_chapters_are_those_of_their_references():
    assert figures.chosen(["01", "a1"]) == [
        str(path)
        for pattern in ("01_*", "a1_*")
        for path in (REPOSITORY / "tests" / "reference").glob(f"{pattern}.ipynb")
    ]


def test_only_the_chosen_chapters_run_and_are_frozen(finished, monkeypatch, capsys):
    (finished.book / "two.md").write_text(CHAPTER)
    monkeypatch.setattr(run, "execute", never)
    arguments = ["--root", str(finished.root)]
    assert book.main([*arguments, "book", "--scale", "sample", "one"]) == 0
    assert "not rendered, because others have not run: two; make book SCALE=sample" in capsys.readouterr().out
    assert book.main([*arguments, "freeze", "--scale", "sample", "one"]) == 0
    assert book.main([*arguments, "freeze", "--scale", "sample", "two"]) == 1
    assert [path.name for path in finished.references("sample").iterdir()] == ["one.ipynb"]


def test_a_draft_needs_no_reference(finished, capsys):
    sources = [finished.book / "one.md"]
    with pytest.raises(references.Missing, match="^no sample reference of one; make freeze SCALE=sample$"):
        references.stored(finished, "sample", sources)
    sources[0].write_text(DRAFT)
    assert (
        provenance.changes(
            notebooks.read(finished.runs("sample") / "one.ipynb"),
            provenance.key(finished, sources[0], "sample"),
        )
        == []
    )  # the mark is no code
    assert references.freeze(finished, "sample")
    assert not finished.references("sample").exists()
    assert book.compared(finished, "sample", sources) == 0
    assert capsys.readouterr().out == "one: a draft, left out\none: a draft without a reference, left out\n"
    sources[0].write_text(CHAPTER)
    assert references.freeze(finished, "sample")
    assert [path.stem for path in references.stored(finished, "sample", sources)] == ["one"]


# What is stale


def change_code(project):
    source = project.book / "one.md"
    source.write_text(source.read_text().replace("1 / 3", "2 / 3"))


def change_library(project):
    (project.library / "model.py").write_text("x = 2\n")


def add_style(project):
    (project.library / "book.mplstyle").write_text("lines.linewidth: 3\n")


def add_pins(project):
    (project.library / "mnist.sha256").write_text("00 file\n")


def rename_module(project):
    (project.library / "model.py").rename(project.library / "renamed.py")


def change_lock(project):
    project.lock.write_text("numpy==3\n")


def edit_output(project):
    path = project.runs("sample") / "one.ipynb"
    path.write_text(path.read_text().replace("0.333333", "0.333334"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (change_code, "source"),
        (change_library, "library"),
        (add_style, "library"),
        (add_pins, "library"),
        (rename_module, "library"),
        (change_lock, "lock"),
        (edit_output, "outputs"),
    ],
)
def test_each_change_makes_a_run_stale(finished, change, named):
    source, path = finished.book / "one.md", finished.runs("sample") / "one.ipynb"
    assert provenance.changes(notebooks.read(path), provenance.key(finished, source, "sample")) == []
    change(finished)
    assert provenance.changes(notebooks.read(path), provenance.key(finished, source, "sample")) == [named]


def test_a_run_is_judged_by_the_modules_it_imported(tmp_path, monkeypatch, capsys):
    project = with_library(tmp_path, "import gmmlib.model")
    room = project.library / "room"
    room.mkdir()
    (room / "other.py").write_text("x = 1\n")
    assert run.bring_up_to_date(project, "sample"), capsys.readouterr().out
    nb = notebooks.read(project.runs("sample") / "one.ipynb")
    assert nb.metadata.provenance.modules == ["__init__.py", "model.py"]
    monkeypatch.setattr(run, "execute", never)
    (room / "other.py").write_text("x = 2\n")
    (room / "new.py").write_text("x = 1\n")
    (room / "new.mplstyle").write_text("lines.linewidth: 3\n")
    assert run.bring_up_to_date(project, "sample")
    assert "nothing stale among 1 notebooks" in capsys.readouterr().out
    wanted = functools.partial(provenance.key, project, project.book / "one.md", "sample")
    change_library(project)
    assert provenance.changes(nb, wanted()) == ["library"]
    (project.library / "model.py").unlink()
    assert provenance.changes(nb, wanted()) == ["library"]


def test_a_record_without_modules_is_judged_by_the_whole_library(finished):
    nb = notebooks.read(finished.runs("sample") / "one.ipynb")
    del nb.metadata.provenance["modules"]
    wanted = functools.partial(provenance.key, finished, finished.book / "one.md", "sample")
    provenance.record(nb, wanted())
    assert provenance.changes(nb, wanted()) == []
    (finished.library / "other.py").write_text("x = 1\n")
    assert provenance.changes(nb, wanted()) == ["library"]


@pytest.mark.parametrize("part", ["scale", "parameters", "data"])
def test_scale_parameters_and_data_are_part_of_the_key(finished, part):
    wanted = provenance.key(finished, finished.book / "one.md", "sample")
    nb = notebooks.read(finished.runs("sample") / "one.ipynb")
    assert provenance.changes(nb, {**wanted, part: "other"}) == [part]


def test_new_data_make_a_run_stale(finished, monkeypatch):
    monkeypatch.setattr(provenance, "data_digests", lambda scale: {"mnist": "0", "bsds": "1"})
    nb = notebooks.read(finished.runs("sample") / "one.ipynb")
    assert provenance.changes(nb, provenance.key(finished, finished.book / "one.md", "sample")) == ["data"]


def test_nothing_stale_runs_nothing(finished, monkeypatch, capsys):
    monkeypatch.setattr(run, "execute", never)
    assert run.bring_up_to_date(finished, "sample")
    assert "nothing stale among 1 notebooks" in capsys.readouterr().out


def test_new_prose_is_taken_over_without_a_run(finished, monkeypatch):
    monkeypatch.setattr(run, "execute", never)
    source, path = finished.book / "one.md", finished.runs("sample") / "one.ipynb"
    before = notebooks.read(path)
    source.write_text(source.read_text().replace("# A chapter\n", "# A title\n\nText.\n\n+++\n\nMore.\n"))
    assert run.bring_up_to_date(finished, "sample")
    after = notebooks.read(path)
    assert notebooks.written(after) == notebooks.written(notebooks.convert(source))
    assert len(after.cells) == len(before.cells) + 1
    assert notebooks.outputs_digest(after) == notebooks.outputs_digest(before)
    assert [cell.id for cell in after.cells][-1] == f"cell-{len(after.cells):02d}"
    tags = [notebooks.tags(cell) for cell in after.cells]
    assert tags.index(["injected-parameters"]) == tags.index(["parameters"]) + 1


# What a failure leaves


def test_a_failing_chapter_stops_no_other_and_leaves_stored_results_alone(project, executed, capfd):
    failing = {"broken": BROKEN, "dead": DEAD, "ill_written": ILL_WRITTEN}
    stored = {}
    for name, text in failing.items():
        (project.book / f"{name}.md").write_text(text)
        for folder in (project.runs("sample"), project.references("sample"), project.references("paper")):
            path = folder / f"{name}.ipynb"
            notebooks.write(provenance.record(nbformat.from_dict(executed[0]), {}), path)
            stored[path] = path.read_bytes()
    assert book.main(["--root", str(project.root), "book", "--scale", "sample"]) == 1
    said = capfd.readouterr().out
    assert "[1/4] broken: FAILED, cell 4 failed:\n\n" in said
    assert "1 / 0" in said
    assert "ZeroDivisionError: division by zero" in said
    assert "[2/4] dead: FAILED, DeadKernelError: Kernel died" in said
    assert "[3/4] ill_written: FAILED, ill_written.md cannot be read: Code cell 3 at line 23" in said
    assert "3 of 4 notebooks failed: broken, dead, ill_written\n" in said
    assert "not rendered, because not every notebook ran" in said
    assert {path: path.read_bytes() for path in stored} == stored
    assert notebooks.flaws(notebooks.read(project.runs("sample") / "one.ipynb")) == []


def test_a_chapter_runs_in_its_folder_and_moves_no_other(project, monkeypatch):
    """The working directory belongs to the process, in which two chapters run at a time."""
    code = CHAPTER.replace("print(object())", "import os; print(os.getcwd())")
    (project.book / "one.md").write_text(code)
    monkeypatch.setattr(os, "chdir", never)
    done = run.execute(notebooks.convert(project.book / "one.md"), project.book, {"scale": "sample"})
    assert f"{project.book}\n" in notebooks.code_cells(done)[1].outputs[0].text


def test_a_full_disk_fails_one_chapter(project, executed, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (project.book / "two.md").write_text(CHAPTER)
    monkeypatch.setattr(run, "execute", lambda *_: nbformat.from_dict(executed[0]))
    monkeypatch.setattr(notebooks.os, "fsync", full)
    assert not run.bring_up_to_date(project, "sample")
    said = capsys.readouterr().out
    assert said.count("FAILED, [Errno 28] No space left on device") == 2
    assert "2 of 2 notebooks failed: one, two" in said
    assert list(project.runs("sample").iterdir()) == []


def test_a_source_that_changes_during_its_run_is_not_stored(project, executed, monkeypatch, capsys):
    monkeypatch.setattr(run, "execute", lambda *_: change_library(project) or using_model(executed))
    assert not run.bring_up_to_date(project, "sample")
    assert "changed while it ran" in capsys.readouterr().out
    assert not project.runs("sample").exists()


def test_the_scale_needs_a_cell_to_set_it_in(project):
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("print(1)")])
    with pytest.raises(run.Failed, match="no cell is tagged `parameters`"):
        run.execute(nb, project.book, {"scale": "sample"})


def test_a_run_that_is_killed_leaves_no_notebook(executed, tmp_path, monkeypatch):
    def killed(_):
        assert list(tmp_path.glob("*.ipynb")) == []  # what is half written has another name
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(notebooks.os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        notebooks.write(executed[0], tmp_path / "one.ipynb")
    assert list(tmp_path.iterdir()) == []


def cut(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize(
    "damage",
    [cut, lambda content: b"", lambda content: b"\xff\xfe", lambda content: b"[]", lambda content: b"{}"],
    ids=["cut", "empty", "bytes", "list", "object"],
)
def test_what_is_not_a_whole_notebook_is_never_taken_as_done(finished, executed, monkeypatch, capsys, damage):
    path = finished.runs("sample") / "one.ipynb"
    reference = finished.references("sample") / "one.ipynb"
    notebooks.write(notebooks.read(path), reference)
    for stored in (path, reference):
        stored.write_bytes(damage(stored.read_bytes()))
    with pytest.raises(notebooks.Unreadable, match=r"one\.ipynb is not a whole notebook: "):
        notebooks.read(path)
    assert not references.freeze(finished, "sample")
    monkeypatch.setattr(run, "execute", lambda *_: nbformat.from_dict(executed[0]))
    assert run.bring_up_to_date(finished, "sample")
    assert "running (what is stored is not a whole notebook)" in capsys.readouterr().out
    assert references.freeze(finished, "sample")
    assert [notebooks.flaws(notebooks.read(stored)) for stored in (path, reference)] == [[], []]


def test_what_killed_runs_left_is_swept(finished, monkeypatch):
    monkeypatch.setattr(run, "execute", never)
    for bring, folder in (
        (run.bring_up_to_date, finished.runs("sample")),
        (references.freeze, finished.references("sample")),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".one-abc.partial").write_text("{")
        assert bring(finished, "sample")
        assert [path.name for path in folder.iterdir()] == ["one.ipynb"]


# What a run runs on

SAYS_WHERE = "import gmmlib; print('library:', gmmlib.__file__)"
OTHERS = "import sys; sys.path.insert(0, '../other'); " + SAYS_WHERE


def with_library(root, code, name="gmmlib"):
    """A project whose chapter runs `code`; it has a library, and so has another folder."""
    project = make_project(root, one=CHAPTER.replace("print(object())", code))
    for folder in (root / name, root / "other" / name):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("")
    return project


def test_a_run_uses_the_library_of_its_project_whatever_is_set(tmp_path, monkeypatch, capsys):
    project = with_library(tmp_path, SAYS_WHERE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    (kernel / "kernel.json").write_text('{"argv": ["false"], "display_name": "x", "language": "python"}')
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    assert run.bring_up_to_date(project, "sample"), capsys.readouterr().out
    nb = notebooks.read(project.runs("sample") / "one.ipynb")
    assert f"library: {project.library / '__init__.py'}\n" in notebooks.code_cells(nb)[1].outputs[0].text


def test_a_run_on_another_library_is_not_recorded(tmp_path, capsys):
    project = with_library(tmp_path, OTHERS)
    assert not run.bring_up_to_date(project, "sample")
    other = tmp_path / "book" / "../other/gmmlib/__init__.py"
    said = f"the kernel has imported gmmlib from {other}, not from {project.library}: make env"
    assert capsys.readouterr().out.splitlines()[1] == f"[1/1] one: FAILED, {said}"
    assert not project.runs("sample").exists()


def test_a_run_on_a_module_from_elsewhere_is_not_recorded(tmp_path, capsys):
    project = make_project(tmp_path, one=CHAPTER.replace("print(object())", "import mlxtend"))
    (project.book / "mlxtend.py").write_text("")
    assert not run.bring_up_to_date(project, "sample")
    said = capsys.readouterr().out
    assert f"the kernel has imported mlxtend from {project.book / 'mlxtend.py'}, outside of the env" in said
    assert not project.runs("sample").exists()


def test_a_linked_checkout_is_the_same_checkout(tmp_path):
    project = with_library(tmp_path / "real", "")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    seen = {"prefixes": [sys.prefix, sys.base_prefix], "files": {"os": os.__file__, "numpy": np.__file__}}
    seen["files"]["gmmlib.em"] = str(project.library / "em.py")
    (tmp_path / "answer").write_text(json.dumps(seen))
    assert kernels.complaint(tmp_path / "answer", tmp_path / "link" / "gmmlib") is None
    assert "gmmlib.em from" in kernels.complaint(tmp_path / "answer", tmp_path / "link2" / "gmmlib")


def test_a_kernel_of_another_environment_is_refused(tmp_path):
    seen = {"prefixes": ["/elsewhere/env", "/usr"], "files": {}}
    (tmp_path / "answer").write_text(json.dumps(seen))
    said = kernels.complaint(tmp_path / "answer", tmp_path)
    assert said == f"the kernel belongs to the environment /elsewhere/env, not to {sys.prefix}"
    assert "does not say" in kernels.complaint(tmp_path / "none", tmp_path)


def test_the_question_leaves_nothing_in_the_notebook(executed):
    nb = executed[0]
    assert [cell.execution_count for cell in nb.cells if cell.cell_type == "code"] == [1, 2, 3, 4]
    assert "imported.json" not in notebooks.to_bytes(nb).decode()


def test_a_comparison_on_another_library_fails(executed, tmp_path):
    nb = nbformat.from_dict(executed[0])
    for cell in notebooks.code_cells(nb)[1:]:
        cell.source, cell.outputs = "import sys", []
    notebooks.code_cells(nb)[1].source = OTHERS.partition("; print")[0]
    notebooks.write(provenance.record(nb, {"scale": "paper"}), tmp_path / "book" / "one.ipynb")
    with_library(tmp_path, "")
    said = run_nbval(tmp_path)
    assert "the kernel has imported gmmlib from" in said
    assert f"not from {REPOSITORY / 'gmmlib'}: make env" in said


@pytest.mark.parametrize("name", ["GMMLIB_DATA", "NUMBA_CACHE_DIR", "MPLCONFIGDIR", "XDG_CACHE_HOME"])
def test_folders_in_the_environment_are_made_absolute_before_a_kernel_reads_them(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somebody")
    for value, meant in [
        ("data", tmp_path / "data"),
        ("../data", tmp_path.parent / "data"),
        ("~/data", "/somebody/data"),
        ("/data", "/data"),
        ("", ""),
    ]:
        monkeypatch.setenv(name, value)
        with kernels.plain_settings():
            assert os.environ[name] == str(meant)
        assert os.environ[name] == value


def test_a_kernel_finds_relative_data(project, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GMMLIB_DATA", "mine")
    (tmp_path / "mine").mkdir()
    code = CHAPTER.replace("print(object())", "import os; print(os.listdir(os.environ['GMMLIB_DATA']))")
    with kernels.plain_settings():
        (project.book / "one.md").write_text(code)
        done = run.execute(notebooks.convert(project.book / "one.md"), project.book, {"scale": "sample"})
    assert "[]\n" in notebooks.code_cells(done)[1].outputs[0].text


def test_a_busy_machine_has_time_and_a_limit_says_so(project, monkeypatch):
    given = {}

    def noted(nb, *_, **settings):
        given.update(settings)
        raise RuntimeError

    nb = notebooks.convert(project.book / "one.md")
    with monkeypatch.context() as patch:
        patch.setattr(run.papermill, "execute_notebook", noted)
        with pytest.raises(run.Failed):
            run.execute(nb, project.book, {})
    assert min(given["start_timeout"], given["iopub_timeout"]) >= 300
    assert given["raise_on_iopub_timeout"]  # or a late output would be left out
    monkeypatch.setattr(run, "PATIENCE", 0)
    with pytest.raises(
        run.Failed, match="(Kernel didn't respond in|timed out while it was being executed, after) 0 seconds"
    ):
        run.execute(nb, project.book, {})


# References


def test_freeze_refuses_what_is_missing_or_stale(finished, capsys):
    assert not references.freeze(finished, "paper")
    change_code(finished)
    assert not references.freeze(finished, "sample")
    assert capsys.readouterr().out == (
        "one: no current run at the paper scale; make book SCALE=paper\n"
        "one: no current run at the sample scale; make book SCALE=sample\n"
    )
    assert not finished.references("sample").exists()


def test_freeze_writes_only_what_differs(finished, capsys):
    target = finished.references("sample") / "one.ipynb"
    assert references.freeze(finished, "sample")
    first = target.stat().st_mtime_ns
    assert references.freeze(finished, "sample")
    assert target.stat().st_mtime_ns == first
    assert capsys.readouterr().out == (
        "tests/reference/one.ipynb: written\ntests/reference/one.ipynb: unchanged\n"
    )
    nb = notebooks.read(target)
    assert [figures.figures(cell.outputs) for cell in notebooks.code_cells(nb)] == [[], [], []]
    assert nb.metadata.provenance.outputs == notebooks.outputs_digest(nb)


def test_freeze_takes_new_prose_from_the_source_alone(finished):
    assert references.freeze(finished, "sample")
    (finished.runs("sample") / "one.ipynb").unlink()
    source = finished.book / "one.md"
    source.write_text(source.read_text().replace("# A chapter", "# Another title"))
    assert references.freeze(finished, "sample")
    nb = notebooks.read(finished.references("sample") / "one.ipynb")
    assert nb.cells[0].source == "# Another title"


# Comparison


@pytest.fixture
def drawing():
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def test_equal_pixels_pass_whatever_the_file(drawing):
    other = io.BytesIO()
    Image.fromarray(drawing).save(other, "png", compress_level=0)
    assert png(drawing) != base64.b64encode(other.getvalue()).decode()
    assert figures.difference(png(drawing), base64.b64encode(other.getvalue()).decode()) is None


def test_a_last_digit_at_one_edge_passes(drawing):
    near = drawing.copy()
    near[:, 7] ^= 1
    assert figures.difference(png(near), png(drawing)) is None


def test_a_changed_block_is_reported_with_its_size(drawing):
    changed = drawing.copy()
    changed[5:9, 5:9] ^= 128
    # 16 of 2400 pixels, 3 of 4 channels, by 128 levels
    assert figures.difference(png(changed), png(drawing)) == (
        "RMS difference is 9.05 of 255 grey levels, allowed are 0.5"
    )


def test_another_size_is_reported(drawing):
    assert figures.difference(png(drawing[:-1]), png(drawing)) == "size is 60 x 39, the reference has 60 x 40"


def run_nbval(folder):
    command = [sys.executable, "-m", "pytest", "-p", "tools.figures", "--nbval", "--nbval-current-env"]
    command += ["--nbval-sanitize-with", "tests/sanitize.cfg", "-rA", "-p", "no:cacheprovider"]
    command += ["--junitxml", str(folder / "junit.xml")]
    command += ["--rootdir", str(folder), str(folder)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False).stdout


def test_nbval_passes_an_equal_run_and_names_each_altered_cell(executed, tmp_path):
    # Cells are counted as nbval does: 0 parameters, 1 injected, 2 text, 3 figures.
    def store(name, alter, scale="paper"):
        nb = provenance.record(nbformat.from_dict(executed[0]), {"scale": scale})
        alter([cell for cell in nb.cells if cell.cell_type == "code"])
        notebooks.write(nb, tmp_path / f"{name}.ipynb")

    def digit(cells):
        cells[2].outputs[0].text = cells[2].outputs[0].text.replace("0.333333", "0.333334")

    def pixels(cells):
        for output in cells[3].outputs:
            for mime in output.data.keys() & set(figures.FIGURES):
                changed = figures.decode(output.data[mime]).astype(np.uint8)
                changed[5:15, 5:15, :3] = 0
                output.data[mime] = png(changed)

    def no_output(cells):
        cells[3].outputs = []

    def not_executed(cells):
        cells[2].outputs, cells[2].execution_count = [], None

    def no_figures(cells):
        for output in cells[3].outputs:
            for mime in output.data.keys() & set(figures.FIGURES):
                del output.data[mime]

    store("equal", lambda cells: None)
    store("sample", no_figures, scale="sample")
    store("digit", digit)
    (tmp_path / "digit.md").write_text(CHAPTER)
    store("pixels", pixels)
    store("silent", no_output)
    store("unrun", not_executed)
    said = run_nbval(tmp_path)
    failed = re.findall(r"^FAILED .*\b(\w+)\.ipynb::Cell (\d)", said, re.MULTILINE)
    assert sorted(failed) == [("digit", "2"), ("pixels", "3"), ("silent", "3"), ("unrun", "2")], said
    assert "figure 1: RMS difference is" in said
    assert "figure 2: RMS difference is" in said
    assert "the reference was never executed" in said
    assert "4 failed, 20 passed" in said
    # In the log and in the XML alike, without colours.
    xml = (tmp_path / "junit.xml").read_text()
    for text in (said, xml):
        assert re.search(r"^chapter +heading +line +stored +now +relative difference$", text, re.MULTILINE)
        assert re.search(r"^digit +A chapter +16 +0.333334 +0.333333 +3.0e-06$", text, re.MULTILINE)
        assert "\x1b" not in text
        assert "#x1B" not in text


# Pages


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<script src="https://cdn.example/x.js"></script>', ["https://cdn.example/x.js"]),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', ["//fonts.example/a.css"]),
        ('<img src="http://example.org/a.png">', ["http://example.org/a.png"]),
        ('<a href="https://example.org">a link is not followed</a><img src="a.png">', []),
        ('<link rel="canonical" href="https://example.org/a.html">', []),
    ],
)
def test_what_a_page_would_fetch_is_found(tmp_path, page, found):
    (tmp_path / "a.html").write_text(page)
    assert [address for _, address in offline.remote_addresses(tmp_path)] == found


def test_glued_figures_can_be_told_from_displayed_ones(executed):
    ((name, stored),) = notebooks.glued_figures(executed[0])
    assert name == "figure"
    assert figures.decode(stored).shape[2] == 4


def test_the_colophon_has_no_clock_and_shows_every_value(monkeypatch, tmp_path):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    records = [
        {"lock": "0123456789abcdef", "data": {"mnist": "fedcba9876543210"}, "versions": {"numpy": version}}
        for version in ("2.4", "2.3")
    ]
    assert colophon.table(tmp_path, "paper", records).splitlines() == [
        "| made from | |",
        "| --- | --- |",
        "| scale | paper |",
        "| commit | unknown |",
        "| date | 1970-01-02 |",
        "| requirements.lock | `0123456789ab` |",
        "| data: mnist | `fedcba987654` |",
        "| numpy | 2.3, 2.4 |",
    ]


# The environment


@pytest.mark.parametrize(
    ("requires", "version", "modules", "says"),
    [
        (">=3.11", (3, 11), ["json"], None),
        (">=3.11", (3, 9), ["json"], "Python 3.11 or newer is needed, this is 3.9; "),
        (">=3.11,<3.14", (3, 14), ["json"], "Python 3.11 or newer, below 3.14 is needed, this is 3.14; "),
        (">=3.11", (3, 12), ["no_venv"], "this Python has no no_venv module; install it"),
    ],
)
def test_bootstrap_says_what_is_missing_in_one_line(requires, version, modules, says):
    bounds = bootstrap.python_bounds(f'[project]\nrequires-python = "{requires}"\n')
    complaint = bootstrap.complaint(version, bounds, modules)
    assert (complaint is None) == (says is None)
    if says:
        assert complaint.startswith(says)
        assert "\n" not in complaint


def test_bootstrap_parses_on_old_pythons():
    ast.parse((REPOSITORY / "tools" / "bootstrap.py").read_text(), feature_version=(3, 5))


@pytest.fixture
def checkout(tmp_path):
    """A folder with what makes an environment, and a finished one that is a mere stamp."""
    root = tmp_path / "one"
    (root / "tools").mkdir(parents=True)
    # With __init__.py: it is this folder of tools that is imported, whatever PYTHONPATH names.
    parts = ("Makefile", "requirements.lock", "pyproject.toml", "tools/__init__.py", "tools/bootstrap.py")
    for name in parts:
        shutil.copy2(REPOSITORY / name, root / name)
    (root / ".venv").mkdir()
    (root / ".venv" / "of one").touch()
    stamp = "from tools import bootstrap; open(bootstrap.STAMP, 'w').write(bootstrap.fingerprint())"
    subprocess.run([sys.executable, "-c", stamp], cwd=root, check=True)
    return root


def up_to_date(root):
    """Whether `make` and the script both find the environment finished."""
    asked = "import sys; from tools import bootstrap; sys.exit(not bootstrap.installed())"
    by_make = subprocess.run(["make", "-q", "env"], cwd=root, check=False).returncode == 0
    by_script = subprocess.run([sys.executable, "-c", asked], cwd=root, check=False).returncode == 0
    return by_make, by_script


def test_an_environment_belongs_to_the_folder_it_was_made_for(checkout, tmp_path):
    assert up_to_date(checkout) == (True, True)
    shutil.copytree(checkout, tmp_path / "two", symlinks=True)
    assert up_to_date(tmp_path / "two") == (False, False)
    (tmp_path / "linked").symlink_to(checkout)
    assert up_to_date(tmp_path / "linked") == (True, True)
    checkout.rename(tmp_path / "moved")
    assert up_to_date(tmp_path / "moved") == (False, False)


def test_a_stamp_of_before_or_a_damaged_one_is_not_trusted(checkout):
    stamp = checkout / ".venv" / ".complete"
    whole = stamp.read_bytes()
    for content in (whole.splitlines()[0] + b"\n", b"", whole[:-3], b"\xff\xfe"):
        stamp.write_bytes(content)
        assert up_to_date(checkout) == (False, False)


def test_setting_up_a_copy_leaves_the_linked_environment_alone(checkout, tmp_path):
    copy = tmp_path / "two"
    shutil.copytree(checkout, copy, ignore=lambda *_: [".venv"])
    (copy / ".venv").symlink_to(checkout / ".venv")
    # Nothing is installed: the environment is made, and pip fails.
    stub = "import subprocess; from tools import bootstrap; old = subprocess.check_call\n"
    stub += "def make(command, **_):\n    assert 'venv' in command\n"
    stub += "    old([*command[:3], '--without-pip', *command[3:]])\n"
    stub += "def fail(*_): raise subprocess.CalledProcessError(1, 'pip')\n"
    stub += "subprocess.check_call, bootstrap.pip = make, fail; bootstrap.main()"
    subprocess.run([sys.executable, "-c", stub], cwd=copy, check=True)
    assert (checkout / ".venv" / "of one").exists()
    assert (copy / ".venv" / "pyvenv.cfg").is_file()
    assert not (copy / ".venv").is_symlink()
    assert up_to_date(checkout) == (True, True)


def test_the_longest_chapters_are_known_by_their_references(tmp_path):
    project = Project(tmp_path)
    project.book.mkdir()
    nb = nbformat.v4.new_notebook(metadata={"provenance": {"occasion": {"seconds": 7}}})
    notebooks.write(nb, project.references("paper") / "01_a.ipynb")
    assert run.expected_seconds(project.book / "01_a.ipynb") == 7
    assert run.expected_seconds(project.book / "02_b.ipynb") == np.inf


def test_lanes_end_at_about_the_same_time(tmp_path):
    paths = []
    for number, seconds in enumerate((1, 9, 4, 5)):
        nb = nbformat.v4.new_notebook(metadata={"provenance": {"occasion": {"seconds": seconds}}})
        paths.append(tmp_path / f"{number}.ipynb")
        notebooks.write(nb, paths[-1])
    assert run.lanes(paths, 2) == [[paths[1], paths[0]], [paths[3], paths[2]]]
    assert run.lanes(paths[:1], 2) == [paths[:1]]
