"""The compiled encoder: batches of one shape, the model's values, and errors before anything is computed."""

import pytest
import torch
from support.families import DUAL, ENCODER, make
from support.sets import CE, MARGIN

from hf_pmgaft import NearestClassMean, evaluate_robustness
from hf_pmgaft.evaluation.compiled import CompiledEncoder
from hf_pmgaft.evaluation.intervals import paired_difference
from hf_pmgaft.models.backbones import get_encoder
from hf_pmgaft.modes import frozen


class Compiler:
    """Stands in for torch.compile: what it compiles runs as it is, and says by which shapes and modes."""

    def __init__(self):
        self.options = []
        self.shapes = set()
        self.written_over = None
        self.steps = 0

    def begin_step(self):
        self.steps += 1

    def __call__(self, function, **options):
        self.options.append(options)

        def compiled(pixel_values):
            self.shapes.add(tuple(pixel_values.shape))
            # The next replay of a CUDA graph writes over the outputs of the one before.
            if self.written_over is not None:
                self.written_over.detach().fill_(torch.nan)
            self.written_over = function(pixel_values)
            return self.written_over

        return compiled


@pytest.fixture
def compiler(monkeypatch) -> Compiler:
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", compiler)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", compiler.begin_step)
    return compiler


def compile_eagerly(monkeypatch) -> list[int]:
    """Lets torch.compile trace and run what it traced, without making code; the operations of each graph."""
    sizes, torch_compile = [], torch.compile

    def backend(graph, inputs):
        sizes.append(sum(node.op.startswith("call") for node in graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda function, mode, dynamic: torch_compile(function, backend=backend, dynamic=dynamic)
    )
    return sizes


def run(fitted, data, **options):
    return evaluate_robustness(*fitted, [data], [MARGIN, CE], **{"progress": False, **options})


# ---- The encoder ----


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_every_batch_is_filled_up_and_no_embedding_is_written_over(model, compiler, mode):
    encode_image = CompiledEncoder(model, mode, size=4)
    images = [torch.rand(count, 3, 16, 16) for count in (4, 1, 3)]
    embeds = [encode_image(batch) for batch in images]

    assert compiler.shapes == {(4, 3, 16, 16)} and compiler.options == [{"mode": mode, "dynamic": False}]
    for batch, embeds_of_batch in zip(images, embeds, strict=True):
        expected = get_encoder(model).image_embeds(model, batch)
        assert embeds_of_batch.shape == expected.shape and torch.allclose(embeds_of_batch, expected, atol=1e-5)


def test_gradients_are_those_of_the_images_that_were_passed(model, compiler):
    images = torch.rand(2, 3, 16, 16)
    gradients = []
    for encode_image in (
        CompiledEncoder(model, "default", size=5),
        lambda x: get_encoder(model).image_embeds(model, x),
    ):
        points = images.clone().requires_grad_()
        gradients += torch.autograd.grad(encode_image(points).square().sum(), points)
    assert gradients[0].abs().max() > 0 and torch.allclose(*gradients, rtol=1e-3, atol=1e-3)


def test_larger_batches_are_not_compiled(model, compiler):
    assert CompiledEncoder(model, "default", size=2)(torch.rand(3, 3, 16, 16)).shape == (3, 24)
    assert compiler.shapes == set()


@pytest.mark.parametrize(("mode", "steps"), [("default", 0), ("max-autotune-no-cudagraphs", 0), ("max-autotune", 2)])
def test_cuda_graphs_are_told_where_a_pass_begins(model, compiler, mode, steps):
    encode_image = CompiledEncoder(model, mode, size=2)
    for _ in range(2):
        encode_image(torch.rand(2, 3, 16, 16))
    assert compiler.steps == steps


@pytest.mark.slow
def test_the_last_block_and_the_text_are_as_lean_as_ever(model, monkeypatch):
    sizes = compile_eagerly(monkeypatch)
    with frozen(model), torch.no_grad():
        CompiledEncoder(model, "default", size=2)(torch.rand(2, 3, 16, 16))
        torch.compile(get_encoder(model).image_embeds_as_is, "default", False)(model, torch.rand(2, 3, 16, 16))
    (lean, whole) = sizes  # each in one piece
    assert lean < whole


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DUAL, *ENCODER])
def test_every_family_is_traced_in_one_piece_and_gives_its_embeddings(name, monkeypatch):
    sizes = compile_eagerly(monkeypatch)
    torch.compiler.reset()
    model = make(name)
    backbone = get_encoder(model)
    edge = backbone.image_size(model)
    with frozen(model):
        encode_image = CompiledEncoder(model, "default", size=4)
        for count in (4, 3, 3):
            images = torch.rand(count, 3, edge, edge)
            assert torch.allclose(encode_image(images), backbone.image_embeds(model, images), atol=1e-4)
    assert len(sizes) == 1


# ---- The evaluation ----


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_verdicts_are_equal_and_shapes_are_one(fitted, data, compiler, precision):
    options = {"attack_precision": precision, "batch_size": 16, "probes": precision == "fp32"}
    compiled, plain = (run(fitted, data, compile=mode, **options) for mode in ("reduce-overhead", None))
    assert compiled.sets == plain.sets and compiled.protocol_hash == plain.protocol_hash
    assert 0 < plain.mean_robust_accuracy < plain.mean_clean_accuracy
    assert compiler.shapes == {(16, 3, 16, 16)} and sum("mode" in options for options in compiler.options) == 1


def test_a_head_is_attacked_through_the_compiled_encoder_too(fitted, data, compiler):
    head = NearestClassMean({"own": data})
    compiled, plain = (run(fitted, data, compile=mode, head=head, max_samples=8) for mode in ("default", None))
    assert compiled.sets == plain.sets and compiler.shapes == {(64, 3, 16, 16)}


def test_the_time_of_compilation_is_told(fitted, data, compiler, capsys):
    run(fitted, data, compile="default", max_samples=2, progress=True)
    assert "The image encoder is compiled at its first passes" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "flips"), [("fp32", 0), ("bf16", 2)])
def test_compiled_code_gives_the_same_verdicts(fitted, data, precision, flips):
    """But for gradients in bfloat16, where compiled code rounds less often."""
    torch.compiler.reset()
    compiled, plain = (
        run(fitted, data, compile=mode, attack_precision=precision, batch_size=16).sets[0]
        for mode in ("reduce-overhead", None)
    )
    pair = paired_difference(plain.verdicts["robust"], compiled.verdicts["robust"])
    assert compiled.clean_accuracy == plain.clean_accuracy and pair.gained + pair.lost <= flips
    assert 0 < plain.robust_accuracy < plain.clean_accuracy


# ---- What cannot be ----


def test_a_mode_that_there_is_not_is_refused(fitted, data):
    with pytest.raises(ValueError, match=r"no compile 'fast'. Choose one of \['default', 'max-autotune',"):
        run(fitted, data, compile="fast")


@pytest.mark.parametrize("attack", ["fab,eps=4/255", "autoattack,version=plus,eps=4/255"])
def test_an_attack_by_several_gradients_of_one_pass_is_refused(fitted, data, attack):
    with pytest.raises(ValueError, match="compile='default' with fab, .* Leave compile out, or attack by fab_t"):
        evaluate_robustness(*fitted, [data], [attack], compile="default", progress=False)


def test_without_a_compiler_nothing_is_computed(fitted, data, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        ValueError, match="You passed compile, but the C.. compiler no-such-compiler, .* leave compile"
    ):
        run(fitted, data, compile="default")


def test_a_python_that_torch_cannot_compile_on_is_named(fitted, data, monkeypatch):
    def refuse(module):
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(ValueError, match="cannot compile here: torch.compile is not supported on Python 3.99.. Leave"):
        run(fitted, data, compile="default")
