"""`vcae serve` as clients meet it: gradio's client, plain HTTP, refusals, and nothing left behind."""

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import soundfile

import vcae
from tests.conftest import CLIPS, ROOT
from tests.demo_server import DEAD_PROXIES, serving
from tests.forked import python
from vcae import compress, decompress

pytest.importorskip("gradio", reason="gradio is not installed: pip install 'vcae[demo]'")
gradio_client = pytest.importorskip("gradio_client")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("serve")


@pytest.fixture(scope="module")
def server(folder):
    from vcae import load, read_sound, save_voice
    from vcae.voice.voice import voice_from_sounds

    model = load(device="cpu")
    voice = voice_from_sounds(model, [read_sound(CLIPS / "reference2.flac")])
    save_voice(voice, folder / "voices" / "carol.safetensors", {"clips": ["reference2.flac"]}, force=True)
    limits = ("--max-seconds", 20, "--max-megabytes", 1, "--voices", folder / "voices")
    with serving(folder, *limits, command="serve") as running:
        yield running


@pytest.fixture(scope="module")
def client(server, folder):
    return gradio_client.Client(server.url, verbose=False, download_files=str(folder / "got"))


def clip(name):
    return gradio_client.handle_file(str(CLIPS / f"{name}.flac"))


def test_convert(client):
    path = client.predict(clip("source"), [clip("reference"), clip("reference2")], api_name="/convert")
    wav, rate = soundfile.read(path)
    assert rate == 16000
    assert len(wav) == soundfile.info(CLIPS / "source.flac").frames
    assert np.abs(wav).max() > 0.1
    # The same as the command line gives: one conversion, two doors.
    again = client.predict(clip("source"), [clip("reference"), clip("reference2")], seed=0, api_name="/convert")
    assert np.array_equal(wav, soundfile.read(again)[0])
    other = client.predict(clip("source"), [clip("reference")], pitch="keep", strength=0.5, api_name="/convert")
    assert not np.array_equal(wav, soundfile.read(other)[0])
    full = client.predict(clip("source"), [clip("reference")], rate=44100, api_name="/convert")
    assert soundfile.info(full).samplerate == 44100
    assert soundfile.info(full).duration == pytest.approx(soundfile.info(path).duration, abs=1e-4)


def test_the_service_equals_the_command(client, tmp_path):
    out = tmp_path / "out.wav"
    words = ["convert", CLIPS / "source.flac", "-s", CLIPS / "reference.flac", "-o", out, "--pitch", "2", "--device", "cpu"]
    subprocess.run([*python(), "-m", "vcae", *map(str, words)], check=True, capture_output=True, cwd=ROOT)
    got = client.predict(clip("source"), [clip("reference")], pitch="2", api_name="/convert")
    difference = soundfile.read(out)[0] - soundfile.read(got)[0]
    assert np.abs(difference).max() < 1e-3


def test_shared_voices_units_and_limits(client):
    limits = client.predict(api_name="/limits")
    assert limits["voices"] == ["carol"]
    assert (limits["seconds"], limits["megabytes"]) == (20, 1)
    wav, _ = soundfile.read(client.predict(clip("source"), [], voice="carol", api_name="/convert"))
    assert np.abs(wav).max() > 0.1
    units = client.predict(clip("source"), api_name="/units")
    assert len(units["units"]) == len(units["start_s"]) == 210
    assert units["end_s"][-1] == pytest.approx(len(wav) / 16000, abs=1e-4)


def test_denoise_alone_and_before_conversion(client, tmp_path):
    noisy = soundfile.read(CLIPS / "noisy.flac", dtype="float32")[0]
    made = soundfile.read(client.predict(clip("noisy"), 0.8, api_name="/denoise"), dtype="float32")[0]
    assert np.abs(made - vcae.denoise(noisy, 16000, 0.8).wav).max() < 2e-3
    plain, cleaned = (
        soundfile.read(client.predict(clip("noisy"), [clip("reference")], denoise=wanted, api_name="/convert"))[0]
        for wanted in (False, True)
    )
    assert np.abs(plain - cleaned).max() > 0.01
    soundfile.write(tmp_path / "wide.wav", np.stack([noisy, 0.3 * noisy], axis=1), 44100)
    info = soundfile.info(client.predict(gradio_client.handle_file(tmp_path / "wide.wav"), 1, api_name="/denoise"))
    assert (info.samplerate, info.channels, info.frames) == (44100, 2, len(noisy))
    with pytest.raises(gradio_client.exceptions.AppError, match="Strength is 3; allowed are 0"):
        client.predict(clip("noisy"), 3, api_name="/denoise")


def test_compress_and_decompress(client, tmp_path):
    path = client.predict(clip("source"), kbps=1.5, api_name="/compress")
    data, frames = Path(path).read_bytes(), soundfile.info(CLIPS / "source.flac").frames
    assert data == compress(soundfile.read(CLIPS / "source.flac", dtype="float32")[0], 16000, 1.5)
    wav, facts = client.predict(gradio_client.handle_file(path), [], api_name="/decompress")
    assert facts == {"duration_s": frames / 16000, "whole_s": frames / 16000, "damage": []}
    assert np.abs(soundfile.read(wav)[0] - decompress(data).wav).max() < 2e-3
    other, _ = client.predict(gradio_client.handle_file(path), [clip("reference")], api_name="/decompress")
    assert soundfile.info(other).frames == frames
    assert not np.array_equal(soundfile.read(wav)[0], soundfile.read(other)[0])
    # A saved voice of another checkpoint is measured again.
    carol, _ = client.predict(gradio_client.handle_file(path), [], voice="carol", api_name="/decompress")
    assert soundfile.info(carol).frames == frames
    assert not np.array_equal(soundfile.read(wav)[0], soundfile.read(carol)[0])
    (tmp_path / "cut.vcz").write_bytes(data[:-20])
    cut = gradio_client.handle_file(str(tmp_path / "cut.vcz"))
    _, facts = client.predict(cut, [], api_name="/decompress")
    (damage,) = facts["damage"]
    assert damage["reason"] == "the file ends within a block"
    assert damage["start_s"] == pytest.approx(facts["duration_s"], abs=0.05)
    (tmp_path / "letter.vcz").write_text("Dear friend")
    letter = gradio_client.handle_file(str(tmp_path / "letter.vcz"))
    for given, message in (
        ({"file": cut, "strict": True}, "cut.vcz is damaged at byte"),
        ({"file": letter}, "letter.vcz is not compressed speech"),
        ({"file": cut, "voice": "nobody"}, "No voice is called"),
        ({"source": clip("source"), "kbps": 9}, "Kbps is 9; allowed are 0.6 to 6"),
    ):
        door = {"api_name": "/compress"} if "source" in given else {"api_name": "/decompress", "references": []}
        with pytest.raises(gradio_client.exceptions.AppError, match=message) as caught:
            client.predict(**given, **door)
        assert "/" not in str(caught.value).replace("kbit/s", "")


def test_documented_endpoints_are_all_there_are(client):
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {
        *("/convert", "/denoise", "/units", "/compress", "/decompress", "/limits")
    }
    names = [p["parameter_name"] for p in client.view_api(return_format="dict")["named_endpoints"]["/convert"]["parameters"]]
    assert names == [
        "source",
        "references",
        "pitch",
        "strength",
        "match",
        "detail",
        "seed",
        "voice",
        "denoise",
        "speed",
        "formant",
        "expression",
        "rate",
        "channels",
        "loudness",
    ]


def test_the_documented_example(server, tmp_path):
    text = (ROOT / "docs/commands.md").read_text()
    (line,) = re.findall(r'python -c "(from gradio_client .*)"$', text, re.M)
    code = line.replace("http://127.0.0.1:7861", server.url)
    for name in ("source", "reference"):
        (tmp_path / f"{name}.flac").write_bytes((CLIPS / f"{name}.flac").read_bytes())
    code = code.replace("talk.wav", "source.flac").replace("friend.wav", "reference.flac")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.abs(soundfile.read(done.stdout.strip().splitlines()[-1])[0]).max() > 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pitch": "loud"}, "Pitch is 'loud'; allowed are auto, keep"),
        ({"strength": 7}, "Strength is 7; allowed are 0 to 1"),
        ({"voice": "nobody"}, "No voice is called"),
        ({"references": []}, "voice is missing"),
        ({"source": "text"}, "is not a sound file"),
        ({"source": "long"}, "1800 s long; at most 20 s"),
    ],
)
def test_mistakes_are_one_sentence(client, server, tmp_path, settings, message):
    given = {"source": clip("source"), "references": [clip("reference")]} | settings
    if settings.get("source") == "text":
        (tmp_path / "letter.wav").write_text("no sound")
        given["source"] = gradio_client.handle_file(str(tmp_path / "letter.wav"))
    elif settings.get("source") == "long":
        soundfile.write(tmp_path / "long.flac", np.zeros(30 * 60 * 16000, dtype=np.int16), 16000)
        given["source"] = gradio_client.handle_file(str(tmp_path / "long.flac"))
    with pytest.raises(gradio_client.exceptions.AppError) as caught:
        client.predict(**given, api_name="/convert")
    said = str(caught.value)
    assert re.search(message, said, re.I), said
    assert "/" not in said.replace("and/or", "")
    assert "Traceback" not in server.log.read_text()


def get(url, data=None, headers=None):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers or {}), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_plain_http_as_documented(server):
    boundary = "vcae"
    paths = []
    for name in ("source", "reference"):
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}.flac"\r\n\r\n'.encode()
        body = head + (CLIPS / f"{name}.flac").read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        status, answer = get(f"{server.url}/gradio_api/upload", body, kind)
        assert status == 200
        paths.append({"path": json.loads(answer)[0], "meta": {"_type": "gradio.FileData"}})
    data = {"data": [paths[0], [paths[1]], "auto", 1.0, "auto", "auto", 0, "", False, 1, 0, 1, 0, "mono", "flat"]}
    kind = {"Content-Type": "application/json"}
    status, answer = get(f"{server.url}/gradio_api/call/convert", json.dumps(data).encode(), kind)
    assert status == 200
    status, answer = get(f"{server.url}/gradio_api/call/convert/{json.loads(answer)['event_id']}")
    assert "event: complete" in answer
    made = json.loads(answer.rsplit("data: ", 1)[1].strip())[0]
    with urllib.request.urlopen(made["url"]) as sound:
        assert sound.read(4) == b"RIFF"


def test_what_is_not_offered(server, folder):
    """No other host's files, no files of this machine, no way around the queue, no large request, none of gradio's other routes."""
    secret = folder / "secret.txt"
    secret.write_text("secret")
    (root,) = folder.glob("vcae-demo-*")
    for path in (
        "gradio_api/file=https://example.org/a.wav",
        f"gradio_api/file={secret}",
        f"gradio_api/file={root}/uploads/../../secret.txt",
        "gradio_api/file=%2Fetc%2Fpasswd",
        "gradio_api/file=/etc/passwd",
        "gradio_api/proxy=https://example.org/",
        "monitoring",
        "gradio_api/runs",
        "gradio_api/vibe-code",
        "gradio_api/deep_link",
    ):
        status, answer = get(f"{server.url}/{path}")
        assert status in (403, 404), path
        assert "secret" not in answer.replace("secret.txt", "")
        assert str(folder) not in answer
    kind = {"Content-Type": "application/json"}
    status, _ = get(f"{server.url}/gradio_api/run/convert", json.dumps({"data": [None] * 8}).encode(), kind)
    assert status == 404
    assert get(f"{server.url}/gradio_api/queue/join", b" " * (2 << 20), kind)[0] == 413
    stolen = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    status, answer = get(f"{server.url}/gradio_api/call/units", json.dumps({"data": [stolen]}).encode(), kind)
    status, answer = get(f"{server.url}/gradio_api/call/units/{json.loads(answer)['event_id']}")
    assert "event: error" in answer
    assert "passwd" not in answer


def test_a_large_file_is_refused(client, server, tmp_path):
    soundfile.write(tmp_path / "large.wav", np.zeros(2 * 600_000, dtype=np.int16), 48000)
    with pytest.raises(Exception, match="size") as caught:
        client.predict(gradio_client.handle_file(str(tmp_path / "large.wav")), [clip("reference")], api_name="/convert")
    assert "vcae-demo" not in str(caught.value)


def test_a_full_queue_is_a_stated_refusal_and_files_go(tmp_path):
    """Few clients for some seconds; then the temporary files go by themselves, and all of them with the server."""
    words = [sys.executable, ROOT / "benchmarks" / "demo_load.py", "--clients", 6, "--seconds", 6, "--queue", 2, "--json"]
    done = subprocess.run(list(map(str, words)), cwd=ROOT, capture_output=True, text=True, env=_environment(tmp_path))
    found = json.loads(done.stdout)
    assert done.returncode == 0, (found, done.stderr)
    assert found["ok"] >= 3
    assert found["refused"] >= 1
    assert found["failed"] == found["tracebacks"] == 0
    assert found["rss_mb_max"] < found["rss_mb_before"] + 120
    assert not list(tmp_path.glob("vcae-demo-*"))


def _environment(tmp_path):
    import os

    return os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}


def test_passwords_proxies_and_old_files(tmp_path):
    """One server for three: who has no password is refused; proxies are not asked, neither by gradio's own request to its server nor, one for
    SOCKS, by its import; and old files are removed while it runs.
    """
    arguments = ("--auth", "ann:secret", "--keep-minutes", 0.05)
    with serving(tmp_path, *arguments, command="serve", more=DEAD_PROXIES) as running:
        assert get(f"{running.url}/config")[0] == 401
        basic = {"Authorization": "Basic " + base64.b64encode(b"ann:secret").decode()}
        assert get(f"{running.url}/v1/voices")[0] == 401
        assert get(f"{running.url}/v1/voices", headers={"Authorization": "Basic " + "YW5uOng="})[0] == 401
        assert get(f"{running.url}/v1/voices", headers=basic)[0] == 200
        assert get(f"{running.url}/gradio_api/upload", b"", {"Content-Type": "text/plain"})[0] in (401, 411)
        client = gradio_client.Client(running.url, auth=("ann", "secret"), verbose=False, download_files=str(tmp_path / "got"))
        assert client.predict(api_name="/limits")["seconds"] == 180
        client.predict(clip("source"), [clip("reference")], api_name="/convert")
        (root,) = tmp_path.glob("vcae-demo-*")
        deadline = time.monotonic() + 40
        while any(p.is_file() for p in root.rglob("*")) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert [p for p in root.rglob("*") if p.is_file()] == []
        assert running.stop() == 0
    assert not list(tmp_path.glob("vcae-demo-*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--auth", "ann"], "--auth is not NAME:PASSWORD"),
        (["--voices", "nonesuch"], "--voices nonesuch is not a folder"),
        (["--host", "203.0.113.7"], "203.0.113.7:7861 cannot be listened on"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, message):
    done = subprocess.run([sys.executable, "-m", "vcae", "serve", *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_gradio(tmp_path):
    code = "import sys; sys.modules['gradio'] = None; from vcae.cli.app import main; sys.argv = ['vcae', 'demo']; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "pip install 'vcae[demo]'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_off_by_default():
    """Nothing is public unless asked for: the addresses and what --help says of them."""
    import inspect

    from vcae.cli.demo import demo, serve

    for command in (demo, serve):
        assert inspect.signature(command).parameters["host"].default == "127.0.0.1"
        assert inspect.signature(command).parameters["auth"].default is None
    assert inspect.signature(demo).parameters["share"].default is False
    assert "share" not in inspect.signature(serve).parameters


def post(server, path, headers=None, **fields):
    """Return status, headers and body of a multipart request with files (paths) and texts."""
    import httpx

    files = [(name, (value.name, value.read_bytes())) for name, value in fields.items() if isinstance(value, Path)]
    data = {name: value for name, value in fields.items() if not isinstance(value, Path)}
    with httpx.Client(trust_env=False, timeout=120) as plain:
        answer = plain.post(server.url + path, files=files, data=data, headers=headers or {})
    return answer.status_code, answer.headers, answer.content


def files_below(folder):
    return {path for path in folder.rglob("*") if path.is_file()}


SOURCE, REFERENCE = CLIPS / "source.flac", CLIPS / "reference.flac"


def test_convert_and_denoise_by_plain_requests(server, tmp_path):
    (root,) = server.log.parent.glob("vcae-demo-*")
    before = files_below(root / "private")
    status, headers, wav = post(server, "/v1/convert", {"X-Request-ID": "mine-1"}, source=SOURCE, reference=REFERENCE)
    assert (status, headers["content-type"], headers["x-request-id"]) == (200, "audio/wav", "mine-1")
    assert 'filename="source.converted.wav"' in headers["content-disposition"]
    (tmp_path / "a.wav").write_bytes(wav)
    made = soundfile.read(tmp_path / "a.wav")[0]
    assert len(made) == soundfile.info(SOURCE).frames
    assert np.abs(made).max() > 0.1
    status, headers, mp3 = post(server, "/v1/convert", source=SOURCE, voice="carol", format="mp3", rate="22050")
    assert (status, headers["content-type"], mp3[:3]) == (200, "audio/mpeg", b"ID3")
    assert soundfile.info(io.BytesIO(mp3)).samplerate == 22050
    status, headers, sent = post(server, "/v1/convert", source=SOURCE, reference=REFERENCE, stream="true")
    assert (status, headers["content-type"], "content-length" in headers) == (200, "audio/wav", False)
    streamed = soundfile.read(io.BytesIO(sent))[0]
    assert len(streamed) == len(made)
    assert np.corrcoef(streamed, made)[0, 1] > 0.99
    speech, rate = soundfile.read(SOURCE, frames=32000)
    soundfile.write(tmp_path / "wide.flac", np.stack([speech, 0.5 * speech], axis=1), rate)
    _, _, wide = post(server, "/v1/convert", source=tmp_path / "wide.flac", voice="carol", loudness="flat")
    left, right = soundfile.read(io.BytesIO(wide))[0].T
    assert np.abs(left - 2 * right).max() < 0.01 * np.abs(left).max()
    _, _, mixed = post(server, "/v1/convert", source=tmp_path / "wide.flac", voice="carol", channels="mono")
    assert soundfile.info(io.BytesIO(mixed)).channels == 1
    status, _, clean = post(server, "/v1/denoise", source=CLIPS / "noisy.flac", strength="0")
    (tmp_path / "b.wav").write_bytes(clean)
    assert np.abs(soundfile.read(tmp_path / "b.wav")[0] - soundfile.read(CLIPS / "noisy.flac")[0]).max() < 1e-3
    # Nothing is left of the requests but their lines in the log and their counts.
    # They are removed right after the answer.
    deadline = time.monotonic() + 10
    while not files_below(root / "private") <= before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert files_below(root / "private") <= before
    assert re.search(r"request mine-1: POST /v1/convert 200 in \d+ ms", server.log.read_text())
    counts = get(f"{server.url}/metrics")[1]
    assert float(re.search(r'vcae_requests_total\{path="/v1/convert",status="200"\} ([\d.]+)', counts)[1]) >= 2
    assert float(re.search(r'vcae_sound_seconds_total\{task="convert"\} ([\d.]+)', counts)[1]) > 13
    assert "vcae_jobs 0.0" in counts


@pytest.mark.parametrize(
    ("path", "fields", "status", "message"),
    [
        ("convert", {"source": SOURCE}, 422, "The voice is missing"),
        ("convert", {"source": SOURCE, "voice": "nobody"}, 422, "No voice is called 'nobody'"),
        ("convert", {"source": SOURCE, "voice": "saved:../../x"}, 422, "No voice is called"),
        ("convert", {"source": SOURCE, "reference": REFERENCE, "pitch": "loud"}, 422, "Pitch is 'loud'"),
        ("convert", {"source": SOURCE, "voice": "carol", "stream": "true", "format": "mp3"}, 422, "Only wav is streamed"),
        ("convert", {"source": SOURCE, "voice": "nobody", "stream": "true"}, 422, "No voice is called 'nobody'"),
        ("denoise", {"source": CLIPS / "NOTICE.md"}, 422, "is not a sound file"),
        ("denoise", {"strength": "1"}, 422, "source"),
        ("nothing", {"source": SOURCE}, 404, "nothing here"),
    ],
)
def test_mistakes_of_plain_requests_are_one_sentence(server, path, fields, status, message):
    got, headers, body = post(server, f"/v1/{path}", **fields)
    assert got == status, body
    said = json.loads(body)
    assert message in json.dumps(said)
    if "error" in said:
        assert "/" not in said["error"].replace("/v1/voices", "").replace("and/or", "")
        assert said["request_id"] == headers["x-request-id"]


def test_voices_health_and_manual(server):
    voices = json.loads(get(f"{server.url}/v1/voices")[1])["voices"]
    assert {"carol", "clip:reference", "seed:5"} <= {voice["id"] for voice in voices}
    assert json.loads(get(f"{server.url}/health")[1]) == {"status": "ok", "version": vcae.__version__, "ready": True}
    described = json.loads(get(f"{server.url}/openapi.json")[1])
    assert set(described["paths"]) == {"/convert", "/denoise", "/voices"}
    manual = get(f"{server.url}/docs")[1]
    assert "POST /v1/convert" in manual
    assert "<td>pitch</td>" in manual
    assert "<script" not in manual


def test_api_keys(tmp_path):
    with serving(tmp_path, command="serve", more={"VCAE_API_KEYS": "first-secret-key second-secret-key"}) as running:
        for path in ("/v1/voices", "/metrics", "/config", "/"):
            assert get(running.url + path)[0] == 401, path
        assert get(f"{running.url}/health")[0] == 200
        assert get(f"{running.url}/v1/voices", headers={"X-API-Key": "first-secret-kez"})[0] == 401
        for headers in ({"Authorization": "Bearer first-secret-key"}, {"X-API-Key": "second-secret-key"}):
            assert get(f"{running.url}/v1/voices", headers=headers)[0] == 200
        assert "secret" not in running.log.read_text()


def examples():
    text = (ROOT / "docs/serve.md").read_text()
    return dict(re.findall(r"```(bash|python|javascript)\n(.*?)```", text, re.S))


@pytest.mark.parametrize("language", ["bash", "python", "javascript"])
def test_examples_of_the_page(server, tmp_path, language):
    words = {
        "bash": ["bash", "-c"],
        "python": [sys.executable, "-c"],
        "javascript": ["node", "--input-type=module", "-e"],
    }[language]
    if shutil.which(words[0]) is None or (language == "bash" and shutil.which("curl") is None):
        pytest.skip(f"{words[0]} or curl is not installed")
    for name, clip_name in (("talk.wav", "source"), ("friend.wav", "reference")):
        (tmp_path / name).write_bytes((CLIPS / f"{clip_name}.flac").read_bytes())
    code = examples()[language].replace("http://127.0.0.1:7861", server.url)
    done = subprocess.run([*words, code], cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"no_proxy": "*"})
    assert done.returncode == 0, done.stderr
    (out,) = tmp_path.glob("out.*")
    assert vcae.read_sound(out).duration_s == pytest.approx(soundfile.info(SOURCE).duration, abs=0.2)
