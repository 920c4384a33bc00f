# docker build -f docker/cpu.Dockerfile -t hotshot-jax .
# docker run -v "$PWD:/work" hotshot-jax --prompt "a red circle growing on a black background"
FROM python:3.12-slim
WORKDIR /opt/hotshot-jax
COPY . .
RUN pip install --no-cache-dir -c constraints.txt ".[train,control]"
# Compiled programs and models outlive a container where these folders are mounted.
ENV XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface
RUN useradd --create-home person && mkdir -p /cache /work && chown person /cache /work
USER person
WORKDIR /work
ENTRYPOINT ["hotshot-jax"]
